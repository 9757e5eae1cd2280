package revocation

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ocsp"

	"github.com/sslstream/sslstream/internal/testpki"
)

var unheardOf = pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}

// signing is a certificate for a delegated responder.
func signing(t *testing.T, ca *testpki.Authority, opts ...testpki.Option) *testpki.Authority {
	t.Helper()
	opts = append([]testpki.Option{testpki.Template(func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = false, true, x509.KeyUsageDigitalSignature
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	})}, opts...)
	return ca.Intermediate(t, "Responder", opts...)
}

// by has a delegate sign.
func by(delegate *testpki.Authority) func(*testpki.Response) {
	return func(r *testpki.Response) {
		r.Responder, r.Key, r.Certificates = delegate.Certificate, delegate.Key, []*x509.Certificate{delegate.Certificate}
	}
}

// keyed is a delegate's certificate with an RSA key of so many bits that nobody has.
func keyed(t *testing.T, ca *testpki.Authority, bits int) *x509.Certificate {
	t.Helper()
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(5), Subject: pkix.Name{CommonName: "Responder"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate, &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537}, ca.Key)
	require.NoError(t, err)
	c, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return c
}

// TestOCSP shows what makes a response count.
func TestOCSP(t *testing.T) {
	ca := testpki.Root(t, "Root").Intermediate(t, "CA")
	other := testpki.Root(t, "Other")
	namesake := testpki.Root(t, "CA")
	leaf := ca.Issue(t, "leaf.example").Leaf
	responder := signing(t, ca)
	single := func(change func(*testpki.Single)) func(*testpki.Response) {
		return func(r *testpki.Response) { change(&r.Singles[0]) }
	}
	for _, tc := range []struct {
		name   string
		change func(*testpki.Response)
		says   string // "" for one that counts
	}{
		{"signed by the issuer", func(*testpki.Response) {}, ""},
		{"which is named", func(r *testpki.Response) { r.ByName = true }, ""},
		{"and embeds its own certificate", func(r *testpki.Response) { r.Certificates = []*x509.Certificate{ca.Certificate} }, ""},
		{"signed by a delegate", by(responder), ""},
		{"which is named", func(r *testpki.Response) { by(responder)(r); r.ByName = true }, ""},
		{"signed by a delegate, whose certificate is not the first", func(r *testpki.Response) {
			by(responder)(r)
			r.Certificates = []*x509.Certificate{other.Certificate, ca.Certificate, responder.Certificate}
		}, ""},
		{"with SHA-256 in its CertID", single(func(s *testpki.Single) { s.Hash = crypto.SHA256 }), ""},
		{"with SHA-384 in its CertID", single(func(s *testpki.Single) { s.Hash = crypto.SHA384 }), ""},
		{"with SHA-512 in its CertID", single(func(s *testpki.Single) { s.Hash = crypto.SHA512 }), ""},
		{"with an extension that need not be understood", func(r *testpki.Response) {
			r.Extensions = []pkix.Extension{{Id: unheardOf.Id, Value: unheardOf.Value}}
			r.Singles[0].Extensions = r.Extensions
		}, ""},
		{"about others as well", func(r *testpki.Response) {
			another := r.Singles[0]
			another.Serial = big.NewInt(7)
			r.Singles = []testpki.Single{another, r.Singles[0]}
		}, ""},
		{"of a clock that is ahead", single(func(s *testpki.Single) { s.ThisUpdate = time.Now().Add(time.Minute) }), ""},

		{"of a later time", single(func(s *testpki.Single) { s.ThisUpdate = time.Now().Add(20 * time.Minute) }), "is not valid before"},
		{"that has run out", single(func(s *testpki.Single) {
			s.ThisUpdate, s.NextUpdate = time.Now().Add(-time.Hour), time.Now().Add(-2*time.Second)
		}), "ran out on"},
		{"without an end, an hour ago", single(func(s *testpki.Single) { s.ThisUpdate, s.NextUpdate = time.Now().Add(-61*time.Minute), time.Time{} }), "ran out on"},
		{"without an end, a moment ago", single(func(s *testpki.Single) { s.ThisUpdate, s.NextUpdate = time.Now().Add(-time.Minute), time.Time{} }), ""},
		{"that ends before it begins", single(func(s *testpki.Single) { s.NextUpdate = s.ThisUpdate.Add(-time.Minute) }), "runs out before it begins"},
		{"with a broken signature", func(r *testpki.Response) { r.Mangle = true }, "is not signed by the certificate's issuer"},
		{"signed with SHA-1", func(r *testpki.Response) { r.WithSHA1 = true }, "signed too weakly"},
		{"signed by another CA", func(r *testpki.Response) { r.Key = other.Key }, "is not signed by the certificate's issuer"},
		{"that names another responder", func(r *testpki.Response) { r.Responder = other.Certificate }, "nor does it have the certificate of its responder"},
		{"that names another responder by name", func(r *testpki.Response) { r.Responder, r.ByName = other.Certificate, true }, "nor does it have the certificate of its responder"},
		{"of a delegate whose certificate is for something else", by(signing(t, ca, testpki.EKU(x509.ExtKeyUsageServerAuth))), "not for signing OCSP responses"},
		{"of a delegate whose certificate is for anything", by(signing(t, ca, testpki.EKU(x509.ExtKeyUsageAny))), "not for signing OCSP responses"},
		{"of a delegate whose certificate has no usage", by(signing(t, ca, testpki.EKU())), "not for signing OCSP responses"},
		{"of a delegate that has expired", by(signing(t, ca, testpki.Expired())), "ran out on"},
		{"of a delegate that is not valid yet", by(signing(t, ca, testpki.NotYet())), "is not valid before"},
		{"of a delegate whose key usage forbids it", by(signing(t, ca, testpki.Template(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }))), "key usage does not allow it"},
		{"of a delegate that demands what is not understood", by(signing(t, ca, testpki.Extension(unheardOf))), "critical extension that is not understood"},
		{"of another CA's delegate", by(signing(t, other)), "no delegate of the certificate's issuer"},
		{"of a namesake's delegate", by(signing(t, namesake)), "the issuer did not sign its certificate"},
		{"of a delegate with a broken certificate", by(signing(t, ca, testpki.BadSignature())), "the issuer did not sign its certificate"},
		{"of a delegate with a weak certificate", by(signing(t, ca, testpki.SHA1())), "signed too weakly"},
		{"of who appointed himself", by(testpki.Root(t, "Responder", testpki.EKU(x509.ExtKeyUsageOCSPSigning))), "no delegate of the certificate's issuer"},
		{"signed by another one than the delegate in it", func(r *testpki.Response) { by(responder)(r); r.Key = other.Key }, "is not signed by CN=Responder"},
		{"of a delegate with a key that takes long", func(r *testpki.Response) {
			by(responder)(r)
			r.Responder = keyed(t, ca, 8200)
			r.Certificates = []*x509.Certificate{r.Responder}
		}, "its RSA key has 8200 bits"},
		{"of a delegate behind too many others", func(r *testpki.Response) {
			by(responder)(r)
			r.Certificates = append(slices.Repeat([]*x509.Certificate{other.Certificate}, 8), responder.Certificate)
		}, "nor does it have the certificate of its responder"},
		{"with a certificate that does not parse", func(r *testpki.Response) {
			by(responder)(r)
			r.Certificates = []*x509.Certificate{{Raw: []byte{0x30, 0}}}
		}, "has a certificate that does not parse"},
		{"that is too large", func(r *testpki.Response) {
			r.Extensions = []pkix.Extension{{Id: unheardOf.Id, Value: make([]byte, maxOCSP)}}
		}, "are possible"},
		{"about another certificate", single(func(s *testpki.Single) { s.Serial = big.NewInt(7) }), "no response matching"},
		{"about another issuer's by name", single(func(s *testpki.Single) { s.NameOf = other.Certificate }), "another issuer's certificate"},
		{"about another issuer's by key", single(func(s *testpki.Single) { s.KeyOf = other.Certificate }), "another issuer's certificate"},
		{"about it twice", func(r *testpki.Response) {
			twice := r.Singles[0]
			twice.Status = ocsp.Revoked
			r.Singles = append(r.Singles, twice)
		}, "about the certificate 2 times"},
		{"about a namesake's of the same number too", func(r *testpki.Response) {
			twice := r.Singles[0]
			twice.KeyOf = namesake.Certificate
			r.Singles = append(r.Singles, twice)
		}, "another issuer's certificate"},
		{"that demands what is not understood", func(r *testpki.Response) { r.Extensions = []pkix.Extension{unheardOf} }, "critical extension 1.2.3.4"},
		{"that demands it of the certificate", single(func(s *testpki.Single) { s.Extensions = []pkix.Extension{unheardOf} }), "unsupported critical extension"},
		{"with an unheard-of hash", single(func(s *testpki.Single) { s.Hash = crypto.MD5 }), "hash"},
		{"that says try later", func(r *testpki.Response) { r.Status = ocsp.TryLater }, "try later"},
		{"that says unauthorized", func(r *testpki.Response) { r.Status = ocsp.Unauthorized }, "unauthorized"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := ca.Serve(t)
			s.OCSP = tc.change
			c := &Checker{Cache: NewCache(1 << 20), Now: time.Now()}
			got, err := c.Local(leaf, ca.Certificate, s.Staple(leaf))
			if tc.says == "" {
				require.NoError(t, err)
				assert.Equal(t, Good, got.Status)
				assert.Equal(t, FromStaple, got.Source)
				assert.NoError(t, got.Err)
				return
			}
			require.ErrorContains(t, err, tc.says)
			assert.Equal(t, Unavailable, got.Status)
		})
	}
}

// TestOCSPStatuses are the three that a responder can give.
func TestOCSPStatuses(t *testing.T) {
	ca := testpki.Root(t, "CA")
	good, revoked, unknown := ca.Issue(t, "good.example").Leaf, ca.Issue(t, "revoked.example").Leaf, ca.Issue(t, "unknown.example").Leaf
	s := ca.Serve(t)
	s.Revoke(revoked, ocsp.KeyCompromise)
	s.Forget(unknown)
	c := &Checker{Cache: NewCache(1 << 20), Now: time.Now()}

	a, err := c.Local(good, ca.Certificate, s.Staple(good))
	require.NoError(t, err)
	assert.Equal(t, Good, a.Status)

	a, err = c.Local(revoked, ca.Certificate, s.Staple(revoked))
	assert.Error(t, err, "it is not what a staple is to say")
	assert.Equal(t, Revoked, a.Status)
	assert.Equal(t, ocsp.KeyCompromise, a.Reason)
	assert.WithinDuration(t, time.Now().Add(-time.Minute), a.RevokedAt, 5*time.Second)
	assert.ErrorContains(t, a.Err, "(keyCompromise)")

	a, err = c.Local(unknown, ca.Certificate, s.Staple(unknown))
	assert.Error(t, err)
	assert.Equal(t, Unknown, a.Status)
	assert.ErrorContains(t, a.Err, "not known to the OCSP responder")
	a, _ = c.Local(unknown, ca.Certificate, nil)
	assert.Equal(t, Unavailable, a.Status, "which is not remembered")
}

// FuzzOCSP changes a good response: what still counts must say the same.
func FuzzOCSP(f *testing.F) {
	ca := testpki.Root(f, "CA")
	leaf := ca.Issue(f, "leaf.example").Leaf
	s := ca.Serve(f)
	good := s.Staple(leaf)
	want, err := parseOCSP(good, leaf, ca.Certificate)
	require.NoError(f, err)
	f.Add(0, []byte{0})
	f.Add(40, []byte{0x82})
	f.Add(len(good), []byte("more"))
	f.Add(-1, []byte{0x30, 3, 0x0a, 1, 3})
	f.Fuzz(func(t *testing.T, at int, patch []byte) {
		changed := patch // a negative place is instead of all of it
		if at >= 0 {
			changed = append([]byte{}, good...)
			at %= len(good) + 1
			changed = append(changed[:at], append(append([]byte{}, patch...), changed[min(at+len(patch), len(changed)):]...)...)
		}
		got, err := parseOCSP(changed, leaf, ca.Certificate)
		if err != nil {
			return
		}
		assert.Equal(t, want.Status, got.Status)
		assert.Equal(t, want.From, got.From)
		assert.Equal(t, want.Until, got.Until)
	})
}
