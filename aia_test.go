package sslstream_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"
	cb "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// certsOnly is a CMS message of certificates (RFC 5652, Section 5), as issuers are served too.
func certsOnly(certs ...*x509.Certificate) []byte {
	oid := func(b *cryptobyte.Builder, ids ...int) { b.AddASN1ObjectIdentifier(ids) }
	var b cryptobyte.Builder
	b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
		oid(b, 1, 2, 840, 113549, 1, 7, 2)
		b.AddASN1(cb.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(cb.SET, func(*cryptobyte.Builder) {})
				b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) { oid(b, 1, 2, 840, 113549, 1, 7, 1) })
				b.AddASN1(cb.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
					for _, c := range certs {
						b.AddBytes(c.Raw)
					}
				})
				b.AddASN1(cb.SET, func(*cryptobyte.Builder) {})
			})
		})
	})
	return b.BytesOrPanic()
}

// incomplete is a fixture whose certificates say where their issuers are, and are shown without them.
type incomplete struct {
	*fixture
	outer                  *testpki.Authority // between the root and the intermediate
	services, rootServices *testpki.Services  // of intermediate, and of outer
	http                   *http.Client
}

func newIncomplete(t *testing.T) *incomplete {
	i := &incomplete{fixture: &fixture{root: testpki.Root(t, "Test Root")}}
	i.outer = i.root.Intermediate(t, "Outer")
	i.rootServices = i.outer.Serve(t)
	i.intermediate = i.outer.Intermediate(t, "Inner", testpki.IssuerURL(i.rootServices.IssuerURL()))
	i.services = i.intermediate.Serve(t)
	i.server = i.intermediate.Issue(t, serverName, testpki.IssuerURL(i.services.IssuerURL()))
	i.client = i.intermediate.Issue(t, "client.example", testpki.IssuerURL(i.services.IssuerURL()))
	i.server.Certificate, i.client.Certificate = i.server.Certificate[:1], i.client.Certificate[:1]
	i.http = testpki.Client(i.services, i.rootServices)
	return i
}

func (i *incomplete) policy() *sslstream.ChainPolicy {
	p := i.trust()
	p.DownloadCertificates, p.HTTPClient = true, i.http
	return p
}

func TestDownloadCertificates(t *testing.T) {
	t.Run("off by default", func(t *testing.T) {
		i := newIncomplete(t)
		p := i.policy()
		p.DownloadCertificates = false
		chain, err := p.Build(t.Context(), i.server.Leaf)
		require.NoError(t, err)
		assert.Equal(t, sslstream.StatusPartialChain, statusOf(chain))
		assert.Contains(t, chain.String(), "could be had from "+i.services.IssuerURL())
		assert.Zero(t, i.services.Requests())
	})
	for name, serve := range map[string]func(*x509.Certificate) []byte{
		"DER": func(c *x509.Certificate) []byte { return c.Raw },
		"PEM": func(c *x509.Certificate) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
		},
		"CMS": func(c *x509.Certificate) []byte { return certsOnly(testpki.Root(t, "Another").Certificate, c) },
		"CMS in PEM": func(c *x509.Certificate) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: certsOnly(c)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIncomplete(t)
			i.services.Issuer, i.rootServices.Issuer = serve(i.intermediate.Certificate), serve(i.outer.Certificate)
			for range 2 {
				chain, err := i.policy().Build(t.Context(), i.server.Leaf)
				require.NoError(t, err)
				assert.Empty(t, chain.Status, "%v", chain)
				require.Len(t, chain.Elements, 4)
				assert.True(t, chain.Elements[1].Certificate.Equal(i.intermediate.Certificate))
			}
			assert.Equal(t, []int{1, 1}, []int{i.services.Requests(), i.rootServices.Requests()}, "downloads are remembered")
		})
	}
	t.Run("all that is missing by one", func(t *testing.T) {
		i := newIncomplete(t)
		i.services.Issuer = certsOnly(i.outer.Certificate, i.intermediate.Certificate)
		chain, err := i.policy().Build(t.Context(), i.server.Leaf)
		require.NoError(t, err)
		assert.Empty(t, chain.Status, "%v", chain)
		assert.Zero(t, i.rootServices.Requests())
	})
	t.Run("the first place has another's", func(t *testing.T) {
		i := newIncomplete(t)
		wrong := testpki.Root(t, "Inner").Serve(t)
		leaf := i.intermediate.Issue(t, serverName, testpki.IssuerURL(wrong.IssuerURL(), i.services.IssuerURL())).Leaf
		p := i.policy()
		p.HTTPClient = testpki.Client(wrong, i.services, i.rootServices)
		chain, err := p.Build(t.Context(), leaf)
		require.NoError(t, err)
		assert.Empty(t, chain.Status, "%v", chain)
	})
	for _, v := range versions {
		t.Run("in a handshake/"+v.name, func(t *testing.T) {
			i := newIncomplete(t)
			co, so := i.mutual()
			co.EnabledProtocols = v.protocol
			client, server := newStreams(t)
			err, _ := authenticate(t, client, server, co, so)
			assert.Equal(t, sslstream.StatusPartialChain, statusOf(authenticationError(t, err).Chain))
			assert.Zero(t, i.services.Requests())

			co, so = i.mutual()
			co.EnabledProtocols = v.protocol
			co.CertificateChainPolicy, so.CertificateChainPolicy = i.policy(), i.policy()
			client, server = newPair(t, co, so)
			exchange(t, client, server)
			assert.Len(t, client.ConnectionState().VerifiedChains[0], 4)
			assert.Len(t, server.ConnectionState().VerifiedChains[0], 4)
		})
	}
	t.Run("and revocation", func(t *testing.T) {
		r := newRevocable(t)
		s := r.intermediate.Serve(t)
		leaf := r.intermediate.Issue(t, serverName, testpki.IssuerURL(s.IssuerURL()), testpki.OCSP(s.OCSPURL())).Leaf
		s.Revoke(leaf, 0)
		p := r.policy(sslstream.RevocationOnline)
		p.DownloadCertificates, p.HTTPClient = true, testpki.Client(s, r.rootServices)
		chain, err := p.Build(t.Context(), leaf)
		require.NoError(t, err)
		assert.Equal(t, sslstream.StatusRevoked, statusOf(chain))
	})
	t.Run("what else is wrong", func(t *testing.T) {
		i := newIncomplete(t)
		i.outer = i.root.Intermediate(t, "Outer", testpki.Key(i.outer.Key), testpki.Expired())
		i.rootServices.Issuer = i.outer.Certificate.Raw
		chain, err := i.policy().Build(t.Context(), i.server.Leaf)
		require.NoError(t, err)
		assert.Equal(t, sslstream.StatusNotTimeValid, statusOf(chain))
		assert.Len(t, chain.Elements, 4)
	})
	t.Run("what is downloaded is not trusted", func(t *testing.T) {
		stranger := testpki.Root(t, "Stranger")
		s := stranger.Serve(t)
		leaf := stranger.Issue(t, serverName, testpki.IssuerURL(s.IssuerURL())).Leaf
		p := newIncomplete(t).policy()
		p.HTTPClient = testpki.Client(s)
		chain, err := p.Build(t.Context(), leaf)
		require.NoError(t, err)
		assert.Equal(t, sslstream.StatusUntrustedRoot, statusOf(chain))
	})
}

func TestDownloadsThatLeadNowhere(t *testing.T) {
	other := testpki.Root(t, "Other").Certificate
	answer := func(status int, body []byte, header ...string) func(string, http.ResponseWriter, *http.Request) bool {
		return func(_ string, w http.ResponseWriter, _ *http.Request) bool {
			if len(header) > 0 {
				w.Header().Set(header[0], header[1])
			}
			w.WriteHeader(status)
			w.Write(body)
			return true
		}
	}
	for _, tc := range []struct {
		name    string
		instead func(string, http.ResponseWriter, *http.Request) bool
		says    string
	}{
		{"nothing there", answer(404, nil), "404"},
		{"nothing", answer(200, nil), "no certificate"},
		{"a page", answer(200, []byte("<html>")), "no certificate"},
		{"a key in PEM", answer(200, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})), "0 certificates"},
		{"an empty message", answer(200, certsOnly()), "no certificate"},
		{"too many", answer(200, bytes.Repeat(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Raw}), 33)), "33 certificates"},
		{"too much", answer(200, make([]byte, 1<<20+1)), "larger than 1048576 bytes"},
		{"a loop", answer(302, nil, "Location", "/issuer"), "more than 5 redirects"},
		{"a file", answer(302, nil, "Location", "file:///etc/passwd"), "no http or https address"},
		{"another certificate", answer(200, other.Raw), "its issuer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			i := newIncomplete(t)
			i.services.Instead = tc.instead
			for range 2 {
				chain, err := i.policy().Build(t.Context(), i.server.Leaf)
				require.NoError(t, err)
				assert.Equal(t, sslstream.StatusPartialChain, statusOf(chain), "%v", chain)
				assert.Contains(t, chain.String(), tc.says)
			}
			assert.LessOrEqual(t, i.services.Requests(), 6, "failures are remembered, too")
		})
	}
	t.Run("another certificate, for a moment", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			i := newIncomplete(t)
			i.services.Issuer = other.Raw
			chain, err := i.policy().Build(t.Context(), i.server.Leaf)
			require.NoError(t, err)
			require.Equal(t, sslstream.StatusPartialChain, statusOf(chain))
			i.services.Issuer = nil
			time.Sleep(11 * time.Second)
			chain, err = i.policy().Build(t.Context(), i.server.Leaf)
			require.NoError(t, err)
			assert.Empty(t, chain.Status)
		})
	})
	t.Run("for another one's certificate", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			i := newIncomplete(t)
			stranger := testpki.Root(t, "Stranger").Intermediate(t, "Gone").Issue(t, serverName, testpki.IssuerURL(i.services.IssuerURL())).Leaf
			for n, test := range []struct {
				leaf   *x509.Certificate
				status sslstream.ChainStatusFlags
			}{{stranger, sslstream.StatusPartialChain}, {i.server.Leaf, 0}, {stranger, sslstream.StatusPartialChain}} {
				chain, err := i.policy().Build(t.Context(), test.leaf)
				require.NoError(t, err)
				assert.Equal(t, test.status, statusOf(chain))
				assert.Equal(t, 1, i.services.Requests(), "%d: who connects cannot have others fail", n)
			}
			time.Sleep(11 * time.Second)
			for range 2 {
				chain, err := i.policy().Build(t.Context(), i.server.Leaf)
				require.NoError(t, err)
				assert.Empty(t, chain.Status)
				assert.Equal(t, 2, i.services.Requests())
				time.Sleep(time.Minute)
			}
		})
	})
	t.Run("the certificate itself", func(t *testing.T) {
		i := newIncomplete(t)
		i.services.Issuer = i.server.Leaf.Raw
		chain, err := i.policy().Build(t.Context(), i.server.Leaf)
		require.NoError(t, err)
		assert.Equal(t, sslstream.StatusPartialChain, statusOf(chain))
	})
	t.Run("two that issue each other", func(t *testing.T) {
		a := testpki.Root(t, "A")
		b := testpki.Root(t, "B")
		s := a.Serve(t)
		a2 := b.Intermediate(t, "A", testpki.Key(a.Key), testpki.IssuerURL(s.Base+"/b"))
		b2 := a.Intermediate(t, "B", testpki.Key(b.Key), testpki.IssuerURL(s.IssuerURL()))
		s.Issuer = a2.Certificate.Raw
		s.Instead = func(kind string, w http.ResponseWriter, _ *http.Request) bool {
			if kind == "b" {
				w.Write(b2.Certificate.Raw)
			}
			return kind == "b"
		}
		leaf := a.Issue(t, serverName, testpki.IssuerURL(s.IssuerURL())).Leaf
		p := newIncomplete(t).policy()
		p.HTTPClient = testpki.Client(s)
		chain, err := p.Build(t.Context(), leaf)
		require.NoError(t, err)
		assert.True(t, chain.Has(sslstream.StatusPartialChain), "%v", chain)
		assert.LessOrEqual(t, s.Asked("issuer")+s.Asked("b"), 4)
	})
	t.Run("a chain without end", func(t *testing.T) {
		root := testpki.Root(t, "0")
		s := root.Serve(t)
		chainOf := []*testpki.Authority{root}
		for n := range 20 {
			next := chainOf[n].Intermediate(t, string(rune('a'+n)), testpki.IssuerURL(s.Base+"/"+string(rune('a'+n-1))))
			chainOf = append(chainOf, next)
		}
		s.Instead = func(kind string, w http.ResponseWriter, _ *http.Request) bool {
			w.Write(chainOf[kind[0]-'a'+1].Certificate.Raw)
			return true
		}
		leaf := chainOf[20].Issue(t, serverName, testpki.IssuerURL(s.Base+"/t")).Leaf
		p := newIncomplete(t).policy()
		p.HTTPClient = testpki.Client(s)
		chain, err := p.Build(t.Context(), leaf)
		require.NoError(t, err)
		assert.True(t, chain.Has(sslstream.StatusPartialChain))
		requests := 0
		for n := range 20 {
			requests += s.Asked(string(rune('a' + n)))
		}
		assert.LessOrEqual(t, requests, 10)
		assert.Contains(t, chain.String(), "longer than 10 certificates")
	})
	t.Run("silence", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			i := newIncomplete(t)
			i.services.Instead = func(_ string, _ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
			began := time.Now()
			chain, err := i.policy().Build(t.Context(), i.server.Leaf)
			require.NoError(t, err)
			assert.Equal(t, 15*time.Second, time.Since(began))
			assert.Equal(t, sslstream.StatusPartialChain, statusOf(chain))
			assert.Contains(t, chain.String(), "deadline exceeded")
			began = time.Now()
			chain, err = i.policy().Build(t.Context(), i.server.Leaf)
			require.NoError(t, err)
			assert.Zero(t, time.Since(began))
			assert.Contains(t, chain.String(), "not asked again so soon")
			synctest.Wait()
		})
	})
	t.Run("other places", func(t *testing.T) {
		root := testpki.Root(t, "Root")
		leaf := root.Intermediate(t, "CA").Issue(t, serverName, testpki.IssuerURL("ldap://ca.example/", "file:///etc/passwd", "ftp://ca.example/ca")).Leaf
		p := newIncomplete(t).policy()
		chain, err := p.Build(t.Context(), leaf)
		require.NoError(t, err)
		assert.Equal(t, sslstream.StatusPartialChain, statusOf(chain))
		assert.Contains(t, chain.String(), "no http or https address")
	})
	t.Run("a chain that is badly signed", func(t *testing.T) {
		i := newIncomplete(t)
		leaf := i.intermediate.Issue(t, serverName, testpki.BadSignature(), testpki.IssuerURL(i.services.IssuerURL())).Leaf
		chain, err := i.policy().Build(t.Context(), leaf, i.intermediate.Certificate)
		require.NoError(t, err)
		assert.True(t, chain.Has(sslstream.StatusNotSignatureValid))
		assert.Zero(t, i.rootServices.Requests())
	})
}
