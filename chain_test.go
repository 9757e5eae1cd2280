package sslstream_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

const (
	notTimeValid      = sslstream.StatusNotTimeValid
	badSignature      = sslstream.StatusNotSignatureValid
	wrongUsage        = sslstream.StatusNotValidForUsage
	untrustedRoot     = sslstream.StatusUntrustedRoot
	cyclic            = sslstream.StatusCyclic
	basicConstraints  = sslstream.StatusInvalidBasicConstraints
	nameConstraints   = sslstream.StatusInvalidNameConstraints
	notPermitted      = sslstream.StatusHasNotPermittedNameConstraint
	excluded          = sslstream.StatusHasExcludedNameConstraint
	partialChain      = sslstream.StatusPartialChain
	weakSignature     = sslstream.StatusHasWeakSignature
	noPolicy          = sslstream.StatusNoIssuanceChainPolicy
	criticalExtension = sslstream.StatusHasNotSupportedCriticalExtension
)

type flags = []sslstream.ChainStatusFlags

func certs(authorities ...*testpki.Authority) []*x509.Certificate {
	var all []*x509.Certificate
	for _, a := range authorities {
		all = append(all, a.Certificate)
	}
	return all
}

func permit(domain string) testpki.Option {
	return testpki.Template(func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical = true
		c.PermittedDNSDomains = append(c.PermittedDNSDomains, domain)
	})
}

func exclude(domain string) testpki.Option {
	return testpki.Template(func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical = true
		c.ExcludedDNSDomains = append(c.ExcludedDNSDomains, domain)
	})
}

func pathLen(n int) testpki.Option {
	return testpki.Template(func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = n, n == 0 })
}

func extension(critical bool, value []byte, oid ...int) testpki.Option {
	return testpki.Template(func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier(oid), Critical: critical, Value: value})
	})
}

func oid(t testing.TB, parts ...uint64) x509.OID {
	o, err := x509.OIDFromInts(parts)
	require.NoError(t, err)
	return o
}

func policies(oids ...x509.OID) testpki.Option {
	return testpki.Template(func(c *x509.Certificate) { c.Policies = oids })
}

// notCA makes an authority that does not say so.
func notCA() testpki.Option {
	return testpki.Template(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid, c.KeyUsage = false, false, 0 })
}

func TestChainStatuses(t *testing.T) {
	serverAuth := testpki.EKU(x509.ExtKeyUsageServerAuth)
	root := testpki.Root(t, "Root")
	ca := root.Intermediate(t, "CA")
	gold, silver := oid(t, 1, 3, 6, 1, 4, 1, 99999, 1), oid(t, 1, 3, 6, 1, 4, 1, 99999, 2)
	requireExplicitPolicy, err := asn1.Marshal(struct {
		RequireExplicitPolicy int `asn1:"tag:0"`
	}{0})
	require.NoError(t, err)

	for _, tc := range []struct {
		name   string
		build  func(t *testing.T) (leaf *x509.Certificate, sent []*x509.Certificate)
		trust  []*testpki.Authority // nil: root
		policy sslstream.ChainPolicy
		want   flags
	}{
		{"valid", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a", serverAuth).Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{}, flags{0, 0, 0}},
		{"valid, root sent too", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a").Leaf, certs(root, ca)
		}, nil, sslstream.ChainPolicy{}, flags{0, 0, 0}},
		{"leaf in the trust store", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Certificate, nil
		}, []*testpki.Authority{ca}, sslstream.ChainPolicy{}, flags{0}},

		{"untrusted root", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			other := testpki.Root(t, "Other")
			return other.Issue(t, "a").Leaf, certs(other)
		}, nil, sslstream.ChainPolicy{}, flags{0, untrustedRoot}},
		{"self-signed leaf", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return testpki.SelfSigned(t, "a").Leaf, nil
		}, nil, sslstream.ChainPolicy{}, flags{untrustedRoot}},
		{"empty trust store", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a").Leaf, certs(ca, root)
		}, []*testpki.Authority{}, sslstream.ChainPolicy{}, flags{0, 0, untrustedRoot}},
		{"missing issuer", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a").Leaf, nil
		}, nil, sslstream.ChainPolicy{}, flags{partialChain}},
		{"missing issuer higher up", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := ca.Intermediate(t, "Sub")
			return sub.Issue(t, "a").Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{}, flags{0, partialChain}},
		{"missing issuer in the extra store", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a").Leaf, nil
		}, nil, sslstream.ChainPolicy{ExtraStore: certs(ca)}, flags{0, 0, 0}},
		{"extra store is not trusted", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a").Leaf, nil
		}, []*testpki.Authority{testpki.Root(t, "Elsewhere")}, sslstream.ChainPolicy{ExtraStore: certs(ca, root)}, flags{0, 0, untrustedRoot}},

		{"expired leaf", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a", testpki.Expired()).Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{}, flags{notTimeValid, 0, 0}},
		{"not yet valid leaf", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a", testpki.NotYet()).Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{}, flags{notTimeValid, 0, 0}},
		{"expired intermediate", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", testpki.Expired())
			return sub.Issue(t, "a").Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{}, flags{0, notTimeValid, 0}},
		{"all expired, never valid together", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", testpki.Valid(-30*time.Hour, -20*time.Hour))
			return sub.Issue(t, "a", testpki.NotYet()).Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{}, flags{notTimeValid, notTimeValid, 0}},
		{"verified for another time", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a").Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{VerificationTime: time.Now().Add(-48 * time.Hour)}, flags{notTimeValid, notTimeValid, notTimeValid}},

		{"wrong usage", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a", testpki.EKU(x509.ExtKeyUsageClientAuth)).Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{ApplicationPolicy: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, flags{wrongUsage, 0, 0}},
		{"one of two usages", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a", serverAuth).Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{ApplicationPolicy: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, flags{wrongUsage, 0, 0}},
		{"both usages", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a", testpki.EKU(x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)).Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{ApplicationPolicy: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, flags{0, 0, 0}},
		{"no usage asked for", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a", testpki.EKU(x509.ExtKeyUsageCodeSigning)).Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{ApplicationPolicy: []x509.ExtKeyUsage{}}, flags{0, 0, 0}},
		{"any usage", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a", testpki.EKU(x509.ExtKeyUsageAny)).Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{ApplicationPolicy: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}, flags{0, 0, 0}},
		{"intermediate for another usage", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", testpki.EKU(x509.ExtKeyUsageClientAuth))
			return sub.Issue(t, "a", serverAuth).Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{ApplicationPolicy: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, flags{0, wrongUsage, 0}},
		{"issuer's key usage", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", testpki.Template(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }))
			return sub.Issue(t, "a").Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{}, flags{0, wrongUsage, 0}},

		{"broken signature", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a", testpki.BadSignature()).Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{}, flags{badSignature, 0, 0}},
		{"broken signature of the intermediate", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", testpki.BadSignature())
			return sub.Issue(t, "a").Leaf, certs(sub, root)
		}, nil, sslstream.ChainPolicy{}, flags{0, badSignature, 0}},
		{"broken signature by a root that is not sent", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return root.Issue(t, "a", testpki.BadSignature()).Leaf, nil
		}, nil, sslstream.ChainPolicy{}, flags{badSignature}},
		{"broken self-signature", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return testpki.SelfSigned(t, "a", testpki.BadSignature()).Leaf, nil
		}, nil, sslstream.ChainPolicy{}, flags{badSignature | untrustedRoot}},
		{"namesake with another key", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			leaf := ca.Issue(t, "a", testpki.Template(func(c *x509.Certificate) { c.AuthorityKeyId = nil }))
			impostor := root.Intermediate(t, "CA", testpki.Template(func(c *x509.Certificate) { c.SubjectKeyId = ca.Certificate.SubjectKeyId }))
			return leaf.Leaf, certs(impostor)
		}, nil, sslstream.ChainPolicy{}, flags{badSignature, 0, 0}},
		{"namesake beside the right one", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a").Leaf, certs(root.Intermediate(t, "CA"), ca)
		}, nil, sslstream.ChainPolicy{}, flags{0, 0, 0}},

		{"issuer is no CA", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", notCA())
			return sub.Issue(t, "a").Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{}, flags{0, basicConstraints, 0}},
		{"path length exceeded", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", pathLen(0))
			subsub := sub.Intermediate(t, "Subsub")
			return subsub.Issue(t, "a").Leaf, certs(sub, subsub)
		}, nil, sslstream.ChainPolicy{}, flags{0, 0, basicConstraints, 0}},
		{"path length just enough", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", pathLen(1))
			subsub := sub.Intermediate(t, "Subsub", pathLen(0))
			return subsub.Issue(t, "a").Leaf, certs(sub, subsub)
		}, nil, sslstream.ChainPolicy{}, flags{0, 0, 0, 0}},

		{"name not permitted", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", permit("example.com"))
			return sub.Issue(t, "a.example.org").Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{}, flags{notPermitted, 0, 0}},
		{"name excluded", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", exclude("example.org"))
			return sub.Issue(t, "a.example.org").Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{}, flags{excluded, 0, 0}},
		{"name excluded by one and not permitted by the other", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", exclude("example.org"))
			subsub := sub.Intermediate(t, "Subsub", permit("example.com"))
			return subsub.Issue(t, "a.example.org").Leaf, certs(sub, subsub)
		}, nil, sslstream.ChainPolicy{}, flags{notPermitted | excluded, 0, 0, 0}},
		{"the intermediate's own name is excluded", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", exclude("ca.example.org"))
			subsub := sub.Intermediate(t, "Subsub", testpki.DNS("ca.example.org"))
			return subsub.Issue(t, "a.example.org").Leaf, certs(sub, subsub)
		}, nil, sslstream.ChainPolicy{}, flags{0, excluded, 0, 0}},
		{"name that cannot be compared", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", permit("example.com"))
			return sub.Issue(t, "a..example.com").Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{}, flags{nameConstraints, 0, 0}},

		{"critical extension", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a", extension(true, []byte{5, 0}, 1, 3, 6, 1, 4, 1, 99999, 9)).Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{}, flags{criticalExtension, 0, 0}},
		{"extension that is not critical", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a", extension(false, []byte{5, 0}, 1, 3, 6, 1, 4, 1, 99999, 9)).Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{}, flags{0, 0, 0}},
		{"intermediate's critical extension", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", extension(true, []byte{5, 0}, 1, 3, 6, 1, 4, 1, 99999, 9))
			return sub.Issue(t, "a").Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{}, flags{0, criticalExtension, 0}},

		{"weak signature", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a", testpki.SHA1()).Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{}, flags{weakSignature, 0, 0}},
		{"weak signature of the intermediate", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := ca.Intermediate(t, "Sub", testpki.SHA1())
			return sub.Issue(t, "a").Leaf, certs(ca, sub)
		}, nil, sslstream.ChainPolicy{}, flags{0, weakSignature, 0, 0}},
		{"weak signature by a root that is not sent", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return root.Issue(t, "a", testpki.SHA1()).Leaf, nil
		}, nil, sslstream.ChainPolicy{}, flags{weakSignature}},
		{"weak and broken signature", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a", testpki.SHA1(), testpki.BadSignature()).Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{}, flags{weakSignature | badSignature, 0, 0}},

		{"certificate policy granted", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", policies(gold, silver))
			return sub.Issue(t, "a", policies(gold, silver)).Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{CertificatePolicy: []x509.OID{gold, silver}}, flags{0, 0, 0}},
		{"certificate policy not granted", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", policies(gold, silver))
			return sub.Issue(t, "a", policies(gold)).Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{CertificatePolicy: []x509.OID{gold, silver}}, flags{wrongUsage, 0, 0}},
		{"certificate policy not granted by the intermediate", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", policies(silver))
			return sub.Issue(t, "a", policies(gold)).Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{CertificatePolicy: []x509.OID{gold}}, flags{wrongUsage, 0, 0}},
		{"certificate policy where there are none", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Issue(t, "a").Leaf, certs(ca)
		}, nil, sslstream.ChainPolicy{CertificatePolicy: []x509.OID{gold}}, flags{wrongUsage, 0, 0}},
		{"any policy above", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", policies(oid(t, 2, 5, 29, 32, 0)))
			return sub.Issue(t, "a", policies(gold)).Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{CertificatePolicy: []x509.OID{gold}}, flags{0, 0, 0}},
		{"certificate policy of a leaf in the trust store", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			return ca.Certificate, nil
		}, []*testpki.Authority{ca}, sslstream.ChainPolicy{CertificatePolicy: []x509.OID{gold}}, flags{wrongUsage}},
		{"policy demanded by an issuer", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", policies(gold), extension(true, requireExplicitPolicy, 2, 5, 29, 36))
			return sub.Issue(t, "a").Leaf, certs(sub)
		}, nil, sslstream.ChainPolicy{}, flags{noPolicy, 0, 0}},

		{"everything at once", func(t *testing.T) (*x509.Certificate, []*x509.Certificate) {
			other := testpki.Root(t, "Other", testpki.Expired())
			sub := other.Intermediate(t, "Sub", exclude("example.org"), testpki.EKU(x509.ExtKeyUsageClientAuth), testpki.NotYet())
			return sub.Issue(t, "a.example.org", testpki.Expired(), testpki.EKU(x509.ExtKeyUsageCodeSigning), extension(true, []byte{5, 0}, 1, 2, 3)).Leaf, certs(other, sub)
		}, nil, sslstream.ChainPolicy{ApplicationPolicy: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
			flags{notTimeValid | wrongUsage | excluded | criticalExtension, notTimeValid | wrongUsage, notTimeValid | untrustedRoot}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			leaf, sent := tc.build(t)
			trust := tc.trust
			if trust == nil {
				trust = []*testpki.Authority{root}
			}
			tc.policy.CustomTrustStore = testpki.Pool(trust...)
			before := slices.Clone(sent)
			chain, err := tc.policy.Build(t.Context(), leaf, sent...)
			require.NoError(t, err)
			assert.Equal(t, tc.want, flagsOf(chain), "%v", chain)
			assert.Equal(t, before, sent)

			// The same in any order, with duplicates and with what has nothing to do with it.
			sent = append(sent, sent...)
			sent = append(sent, leaf, testpki.SelfSigned(t, "unrelated").Leaf)
			rand.Shuffle(len(sent), func(i, j int) { sent[i], sent[j] = sent[j], sent[i] })
			again, err := tc.policy.Build(t.Context(), leaf, sent...)
			require.NoError(t, err)
			assert.Equal(t, tc.want, flagsOf(again), "%v", again)

			var union sslstream.ChainStatusFlags
			for _, e := range chain.Elements {
				for _, s := range e.Status {
					union |= s.Flag
					assert.NotEmpty(t, s.Detail)
					assert.Error(t, s.Err)
					assert.Contains(t, chain.String(), s.Flag.String())
				}
			}
			assert.Equal(t, union, statusOf(chain))
		})
	}
}

func TestChainExpiredRoot(t *testing.T) {
	for _, tc := range []struct {
		name string
		opt  testpki.Option
	}{{"expired", testpki.Valid(-48*time.Hour, -time.Hour)}, {"not yet valid", testpki.Valid(time.Hour, 20*time.Hour)}} {
		t.Run(tc.name, func(t *testing.T) {
			root := testpki.Root(t, "Root", tc.opt)
			ca := root.Intermediate(t, "CA", testpki.Valid(-30*time.Hour, 10*time.Hour))
			policy := sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(root)}
			chain, err := policy.Build(t.Context(), ca.Issue(t, "a").Leaf, ca.Certificate)
			require.NoError(t, err)
			assert.Equal(t, flags{0, 0, notTimeValid}, flagsOf(chain))
		})
	}
}

func TestChainCrossSigned(t *testing.T) {
	old, young := testpki.Root(t, "Old"), testpki.Root(t, "Young")
	// Young's key, certified by Old as well.
	cross := old.Intermediate(t, "Young", testpki.Key(young.Key))
	leaf := young.Issue(t, "a").Leaf
	for _, tc := range []struct {
		name  string
		trust *testpki.Authority
		want  int
	}{{"by the old root", old, 3}, {"by the young root", young, 2}} {
		t.Run(tc.name, func(t *testing.T) {
			policy := sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(tc.trust)}
			chain, err := policy.Build(t.Context(), leaf, young.Certificate, cross.Certificate)
			require.NoError(t, err)
			assert.Empty(t, chain.Status)
			assert.Len(t, chain.Elements, tc.want)
		})
	}
	t.Run("the better of two bad ones", func(t *testing.T) {
		expired := old.Intermediate(t, "Young", testpki.Key(young.Key), testpki.Expired())
		policy := sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(old)}
		chain, err := policy.Build(t.Context(), young.Issue(t, "a", testpki.Expired()).Leaf, expired.Certificate, cross.Certificate, young.Certificate)
		require.NoError(t, err)
		assert.Equal(t, flags{notTimeValid, 0, 0}, flagsOf(chain))
	})
	t.Run("in a circle", func(t *testing.T) {
		a := testpki.Root(t, "A")
		b := a.Intermediate(t, "B")
		again := b.Intermediate(t, "A", testpki.Key(a.Key))
		policy := sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(testpki.Root(t, "C"))}
		chain, err := policy.Build(t.Context(), again.Issue(t, "a").Leaf, again.Certificate, b.Certificate)
		require.NoError(t, err)
		assert.Equal(t, flags{0, 0, cyclic | partialChain}, flagsOf(chain))
	})
}

func TestChainMissingIssuerSaysWhere(t *testing.T) {
	root := testpki.Root(t, "Root")
	leaf := root.Issue(t, "a", testpki.Template(func(c *x509.Certificate) {
		c.IssuingCertificateURL = []string{"http://ca.example/root.crt"}
	})).Leaf
	policy := sslstream.ChainPolicy{CustomTrustStore: x509.NewCertPool()}
	chain, err := policy.Build(t.Context(), leaf)
	require.NoError(t, err)
	require.Len(t, chain.Status, 1)
	assert.Contains(t, chain.Status[0].Detail, "CN=Root")
	assert.Contains(t, chain.Status[0].Detail, "http://ca.example/root.crt")
}

func TestVerificationFlags(t *testing.T) {
	root := testpki.Root(t, "Root")
	plain := testpki.Root(t, "No authority", notCA())
	for _, tc := range []struct {
		name   string
		flag   sslstream.VerificationFlags
		leaf   func() (*x509.Certificate, []*x509.Certificate)
		status sslstream.ChainStatusFlags
	}{
		{"time", sslstream.IgnoreNotTimeValid, func() (*x509.Certificate, []*x509.Certificate) {
			return root.Issue(t, "a", testpki.Expired()).Leaf, nil
		}, notTimeValid},
		{"basic constraints", sslstream.IgnoreInvalidBasicConstraints, func() (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", notCA())
			return sub.Issue(t, "a").Leaf, certs(sub)
		}, basicConstraints},
		{"basic constraints of a trusted root", sslstream.IgnoreInvalidBasicConstraints, func() (*x509.Certificate, []*x509.Certificate) {
			return plain.Issue(t, "a").Leaf, certs(plain)
		}, basicConstraints},
		{"unknown authority, untrusted", sslstream.AllowUnknownCertificateAuthority, func() (*x509.Certificate, []*x509.Certificate) {
			return testpki.SelfSigned(t, "a").Leaf, nil
		}, untrustedRoot},
		{"unknown authority, missing", sslstream.AllowUnknownCertificateAuthority, func() (*x509.Certificate, []*x509.Certificate) {
			return testpki.Root(t, "Other").Issue(t, "a").Leaf, nil
		}, partialChain},
		{"usage", sslstream.IgnoreWrongUsage, func() (*x509.Certificate, []*x509.Certificate) {
			return root.Issue(t, "a", testpki.EKU(x509.ExtKeyUsageCodeSigning)).Leaf, nil
		}, wrongUsage},
		{"policy", sslstream.IgnoreInvalidPolicy, func() (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", policies(oid(t, 1, 3, 6, 1, 4, 1, 99999, 1)), extension(true, []byte{0x30, 3, 0x80, 1, 0}, 2, 5, 29, 36))
			return sub.Issue(t, "a").Leaf, certs(sub)
		}, noPolicy},
		{"names", sslstream.IgnoreInvalidName, func() (*x509.Certificate, []*x509.Certificate) {
			sub := root.Intermediate(t, "Sub", exclude("example.org"))
			return sub.Issue(t, "a.example.org").Leaf, certs(sub)
		}, excluded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			leaf, sent := tc.leaf()
			policy := sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(root, plain), ApplicationPolicy: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
			chain, err := policy.Build(t.Context(), leaf, sent...)
			require.NoError(t, err)
			assert.Equal(t, tc.status, statusOf(chain))

			const all = sslstream.IgnoreNotTimeValid | sslstream.IgnoreInvalidBasicConstraints | sslstream.AllowUnknownCertificateAuthority |
				sslstream.IgnoreWrongUsage | sslstream.IgnoreInvalidName | sslstream.IgnoreInvalidPolicy
			for _, ignore := range []sslstream.VerificationFlags{tc.flag, all} {
				policy.VerificationFlags = ignore
				chain, err = policy.Build(t.Context(), leaf, sent...)
				require.NoError(t, err)
				assert.Empty(t, chain.Status, "ignoring %x", uint32(ignore))
				listed := sslstream.ChainStatusFlags(0)
				for _, f := range flagsOf(chain) {
					listed |= f
				}
				assert.Equal(t, tc.status, listed, "what is ignored is still listed")
			}

			policy.VerificationFlags = all &^ tc.flag
			chain, err = policy.Build(t.Context(), leaf, sent...)
			require.NoError(t, err)
			assert.Equal(t, tc.status, statusOf(chain), "the other flags do not ignore it")
		})
	}
	t.Run("what cannot be ignored", func(t *testing.T) {
		leaf := root.Issue(t, "a", testpki.BadSignature()).Leaf
		policy := sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(root), VerificationFlags: 4089 &^ 512}
		chain, err := policy.Build(t.Context(), leaf)
		require.NoError(t, err)
		assert.Equal(t, badSignature, statusOf(chain))
	})
	t.Run("name of the host", func(t *testing.T) {
		f := newFixture(t)
		co := f.clientOptions()
		co.TargetHost = "other.example"
		co.CertificateChainPolicy.VerificationFlags = sslstream.IgnoreInvalidName
		client, _ := newPair(t, co, f.serverOptions())
		assert.Zero(t, client.PolicyErrors())
	})
	t.Run("accepted chains are verified chains", func(t *testing.T) {
		f := newFixture(t)
		so := f.serverOptions()
		expired := f.intermediate.Issue(t, serverName, testpki.Expired())
		so.ServerCertificate = &expired
		co := f.clientOptions()
		co.CertificateChainPolicy.VerificationFlags = sslstream.IgnoreNotTimeValid
		client, _ := newPair(t, co, so)
		assert.Zero(t, client.PolicyErrors())
		assert.True(t, len(client.RemoteChain().Elements[0].Status) == 1)
		assert.Len(t, client.ConnectionState().VerifiedChains, 1)
	})
}

// TestChainBoundedWork has a peer send as much as it can to keep us busy.
func TestChainBoundedWork(t *testing.T) {
	key := testpki.Root(t, "Key").Key
	var sent []*x509.Certificate
	var top *testpki.Authority
	for i := range 60 {
		// All have the same two names and the same key, so each one is an issuer of all others.
		name, issuer := fmt.Sprintf("Loop %d", i%2), top
		if issuer == nil {
			issuer = testpki.Root(t, "Loop 1", testpki.Key(key))
		}
		top = issuer.Intermediate(t, name, testpki.Key(key), exclude("example.org"), testpki.DNS("ca.example.org"),
			testpki.Template(func(c *x509.Certificate) { c.SubjectKeyId = []byte{byte(i % 2)} }))
		sent = append(sent, top.Certificate)
	}
	leaf := top.Issue(t, "a.example.org").Leaf
	policy := sslstream.ChainPolicy{CustomTrustStore: x509.NewCertPool()}
	began := time.Now()
	chain, err := policy.Build(t.Context(), leaf, sent...)
	require.NoError(t, err)
	assert.NotEmpty(t, chain.Status)
	assert.LessOrEqual(t, len(chain.Elements), 10)
	t.Logf("%d elements after %v", len(chain.Elements), time.Since(began))
}
