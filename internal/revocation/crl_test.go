package revocation

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"
	cb "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/sslstream/sslstream/internal/testpki"
)

// point is an issuing distribution point (RFC 5280, Section 5.2.5) with the flags of these tags, and a name if that is not empty.
func point(name string, flags ...uint8) pkix.Extension {
	var b cryptobyte.Builder
	b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
		if name != "" {
			b.AddASN1(cb.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1(cb.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
					b.AddASN1(cb.Tag(2).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte("a.dns.name")) })
					b.AddASN1(cb.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(name)) })
				})
			})
		}
		for _, f := range flags {
			value := []byte{0xff}
			if f == 3 {
				value = []byte{6, 0x40} // keyCompromise
			}
			b.AddASN1(cb.Tag(f).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(value) })
		}
	})
	return pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: b.BytesOrPanic()}
}

// TestCRL shows what makes a list count, for an end certificate and for a CA's.
func TestCRL(t *testing.T) {
	ca := testpki.Root(t, "CA")
	other := testpki.Root(t, "Other")
	namesake := testpki.Root(t, "CA", testpki.Key(other.Key))
	noSigner := testpki.Root(t, "CA", testpki.Key(ca.Key), testpki.Template(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }))
	noCA := testpki.Root(t, "CA", testpki.Key(ca.Key), testpki.Template(func(c *x509.Certificate) { c.IsCA = false }))
	leaf, below := ca.Issue(t, "leaf.example").Leaf, ca.Intermediate(t, "Below").Certificate
	s := ca.Serve(t)
	with := func(e ...pkix.Extension) func(*testpki.List) {
		return func(l *testpki.List) { l.ExtraExtensions = append(l.ExtraExtensions, e...) }
	}
	entry := func(e pkix.Extension) func(*testpki.List) {
		return func(l *testpki.List) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(7), RevocationTime: time.Now(), ExtraExtensions: []pkix.Extension{e}}}
		}
	}
	malformed := point("")
	malformed.Value = malformed.Value[:1]
	oddFlag := point("", 1)
	oddFlag.Value = []byte{0x30, 3, 0x81, 1, 1}
	for _, tc := range []struct {
		name      string
		change    func(*testpki.List)
		issuer    *x509.Certificate
		says      string // of the list, or of the end certificate; "" where it counts
		saysOfCAs string
	}{
		{"the issuer's", func(*testpki.List) {}, ca.Certificate, "", ""},
		{"for its own distribution point", with(point(s.CRLURL())), ca.Certificate, "", ""},
		{"with what need not be understood", with(pkix.Extension{Id: unheardOf.Id, Value: unheardOf.Value}), ca.Certificate, "", ""},
		{"for end certificates", with(point("", 1)), ca.Certificate, "", "for end certificates only"},
		{"for CAs", with(point("", 2)), ca.Certificate, "for CA certificates only", ""},
		{"for end certificates, and CAs", with(point("", 1, 2)), ca.Certificate, "for no certificates at all", "for no certificates at all"},
		{"for some reasons", with(point("", 3)), ca.Certificate, "some reasons", "some reasons"},
		{"for any issuer's", with(point("", 4)), ca.Certificate, "indirect", "indirect"},
		{"for attribute certificates", with(point("", 5)), ca.Certificate, "attribute", "attribute"},
		{"for another distribution point", with(point("http://elsewhere.example/crl")), ca.Certificate, "another distribution point's", "another distribution point's"},
		{"for a malformed distribution point", with(malformed), ca.Certificate, "does not parse", "does not parse"},
		{"for a distribution point with an odd flag", with(oddFlag), ca.Certificate, "does not parse", "does not parse"},
		{"of changes", with(pkix.Extension{Id: oidDeltaCRLIndicator, Critical: true, Value: []byte{2, 1, 1}}), ca.Certificate, "only what has changed", "only what has changed"},
		{"of changes, which it says aside", with(pkix.Extension{Id: oidDeltaCRLIndicator, Value: []byte{2, 1, 1}}), ca.Certificate, "only what has changed", "only what has changed"},
		{"that demands what is not understood", with(unheardOf), ca.Certificate, "critical extension 1.2.3.4", "critical extension 1.2.3.4"},
		{"with an entry that does", entry(unheardOf), ca.Certificate, "entry with the critical extension", "entry with the critical extension"},
		{"with an entry of another issuer's", entry(pkix.Extension{Id: []int{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}), ca.Certificate, "entry with the critical extension", "entry with the critical extension"},
		{"with an entry that gives a date", entry(pkix.Extension{Id: oidInvalidityDate, Critical: true, Value: []byte{0x30, 0}}), ca.Certificate, "", ""},
		{"another issuer's", func(l *testpki.List) { l.Issuer, l.Key = other.Certificate, other.Key }, ca.Certificate, "another issuer's", "another issuer's"},
		{"of the issuer's name and another key", func(l *testpki.List) { l.Issuer, l.Key = namesake.Certificate, namesake.Key }, ca.Certificate, "another key than the issuer's", "another key than the issuer's"},
		{"of another key that says it is the issuer's", func(l *testpki.List) {
			forged := *namesake.Certificate
			forged.SubjectKeyId = ca.Certificate.SubjectKeyId
			l.Issuer, l.Key = &forged, namesake.Key
		}, ca.Certificate, "not signed by the certificate's issuer", "not signed by the certificate's issuer"},
		{"of an issuer that may not sign it", func(*testpki.List) {}, noSigner.Certificate, "may not sign CRLs", "may not sign CRLs"},
		{"of an issuer that is no CA", func(*testpki.List) {}, noCA.Certificate, "may not sign CRLs", "may not sign CRLs"},
		{"of a later time", func(l *testpki.List) { l.ThisUpdate = time.Now().Add(20 * time.Minute) }, ca.Certificate, "is not valid before", "is not valid before"},
		{"that has run out", func(l *testpki.List) {
			l.ThisUpdate, l.NextUpdate = time.Now().Add(-time.Hour), time.Now().Add(-2*time.Second)
		}, ca.Certificate, "ran out on", "ran out on"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s.CRL = tc.change
			der := s.List()
			for _, of := range []struct {
				cert *x509.Certificate
				says string
			}{{leaf, tc.says}, {below, tc.saysOfCAs}} {
				list, err := parseCRL(der, s.CRLURL(), tc.issuer)
				var a *Answer
				if err == nil {
					a, err = list.look(of.cert)
				}
				if err == nil && !a.counts(time.Now()) {
					err = a.period(time.Now())
				}
				if of.says == "" {
					require.NoError(t, err)
					assert.Equal(t, Good, a.Status)
				} else {
					assert.ErrorContains(t, err, of.says)
				}
			}
		})
	}
	t.Run("signed with SHA-1", func(t *testing.T) {
		s.CRL = nil
		list, err := x509.ParseRevocationList(s.List())
		require.NoError(t, err)
		weak := testpki.ResignedWithSHA1(t, list.Raw, ca.Key)
		_, err = parseCRL(weak, s.CRLURL(), ca.Certificate)
		assert.ErrorContains(t, err, "signed too weakly")
	})
	t.Run("without an end", func(t *testing.T) {
		der := withoutNextUpdate(t, s.List(), ca)
		_, err := parseCRL(der, s.CRLURL(), ca.Certificate)
		assert.ErrorContains(t, err, "until when")
	})
}

// withoutNextUpdate signs a list again that does not say when the next one comes.
func withoutNextUpdate(t *testing.T, der []byte, ca *testpki.Authority) []byte {
	return testpki.Resigned(t, der, ca.Key, func(fields [][]byte) [][]byte {
		return append(fields[:4:4], fields[5:]...) // version, signature, issuer, thisUpdate, nextUpdate, …
	})
}

// TestCRLEntries looks serial numbers of all lengths up, in a list of many.
func TestCRLEntries(t *testing.T) {
	ca := testpki.Root(t, "CA")
	s := ca.Serve(t)
	serial := func(i int) *big.Int { // 1 to 20 octets
		return new(big.Int).SetBytes(bytes.Repeat([]byte{byte(i%254 + 1)}, i%20+1))
	}
	var listed []x509.RevocationListEntry
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	for i := range 3000 {
		if i%2 == 0 {
			listed = append(listed, x509.RevocationListEntry{SerialNumber: serial(i), RevocationTime: at, ReasonCode: 1 + i%6})
		}
	}
	isListed := map[string]int{}
	for _, e := range listed {
		if _, ok := isListed[e.SerialNumber.String()]; !ok {
			isListed[e.SerialNumber.String()] = e.ReasonCode
		}
	}
	s.CRL = func(l *testpki.List) { l.RevokedCertificateEntries = listed }
	list, err := parseCRL(s.List(), s.CRLURL(), ca.Certificate)
	require.NoError(t, err)
	assert.Less(t, list.size(), 50*len(listed))
	found := 0
	for i := range 3000 {
		a, err := list.look(&x509.Certificate{SerialNumber: serial(i)})
		require.NoError(t, err)
		reason, ok := isListed[serial(i).String()]
		require.Equal(t, ok, a.Status == Revoked, "%v", serial(i))
		if ok {
			found++
			require.NotZero(t, reason)
			require.True(t, a.RevokedAt.Equal(at))
		}
	}
	assert.Greater(t, found, 1000)
	_, err = list.look(&x509.Certificate{SerialNumber: new(big.Int).Lsh(big.NewInt(1), 200)})
	assert.ErrorContains(t, err, "too long")
}

// FuzzCRL changes a list that revokes a certificate: what still counts must say the same.
func FuzzCRL(f *testing.F) {
	ca := testpki.Root(f, "CA")
	leaf := ca.Issue(f, "leaf.example").Leaf
	s := ca.Serve(f)
	s.Revoke(leaf, 1)
	s.CRL = func(l *testpki.List) { l.ExtraExtensions = []pkix.Extension{point(s.CRLURL(), 1)} }
	der := s.List()
	f.Add(0, []byte{0})
	f.Add(60, []byte{0x82})
	f.Add(len(der), []byte("more"))
	f.Add(-1, []byte{0x30, 3, 0x0a, 1, 3})
	f.Fuzz(func(t *testing.T, at int, patch []byte) {
		(&revocationList{}).setScope(patch, s.CRLURL())
		changed := patch // a negative place is instead of all of it
		if at >= 0 {
			changed = append([]byte{}, der...)
			at %= len(der) + 1
			changed = append(changed[:at], append(append([]byte{}, patch...), changed[min(at+len(patch), len(changed)):]...)...)
		}
		list, err := parseCRL(changed, s.CRLURL(), ca.Certificate)
		if err != nil {
			return
		}
		a, err := list.look(leaf)
		require.NoError(t, err)
		assert.Equal(t, Revoked, a.Status)
	})
}
