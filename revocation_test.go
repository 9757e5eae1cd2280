package sslstream_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ocsp"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// revocable is a fixture whose certificates name OCSP responders: the leaves the intermediate's, the intermediate the root's.
type revocable struct {
	*fixture
	rootServices, services *testpki.Services
	http                   *http.Client
}

func newRevocable(t testing.TB, leaf ...testpki.Option) *revocable {
	t.Helper()
	r := &revocable{fixture: &fixture{root: testpki.Root(t, "Test Root")}}
	r.rootServices = r.root.Serve(t)
	r.intermediate = r.root.Intermediate(t, "Test Intermediate", testpki.OCSP(r.rootServices.OCSPURL()))
	r.services = r.intermediate.Serve(t)
	r.http = testpki.Client(r.services, r.rootServices)
	leaf = append([]testpki.Option{testpki.OCSP(r.services.OCSPURL())}, leaf...)
	r.server = r.intermediate.Issue(t, serverName, append(leaf, testpki.EKU(x509.ExtKeyUsageServerAuth))...)
	r.client = r.intermediate.Issue(t, "client.example", append(leaf, testpki.EKU(x509.ExtKeyUsageClientAuth))...)
	return r
}

func (r *revocable) policy(mode sslstream.RevocationMode) *sslstream.ChainPolicy {
	p := r.trust()
	p.RevocationMode, p.HTTPClient = mode, r.http
	return p
}

func (r *revocable) build(t testing.TB, p *sslstream.ChainPolicy) *sslstream.Chain {
	t.Helper()
	chain, err := p.Build(testContext(t), r.server.Leaf, r.intermediate.Certificate)
	require.NoError(t, err)
	return chain
}

// options are for both sides, of which the client checks.
func (r *revocable) options(mode sslstream.RevocationMode) (*sslstream.ClientOptions, *sslstream.ServerOptions) {
	co, so := r.clientOptions(), r.serverOptions()
	co.CertificateChainPolicy = r.policy(mode)
	return co, so
}

const (
	unknownStatus = sslstream.StatusRevocationUnknown
	noAnswer      = sslstream.StatusRevocationUnknown | sslstream.StatusOfflineRevocation
)

// refuseAll has services answer nothing.
func refuseAll(all ...*testpki.Services) {
	for _, s := range all {
		s.Instead = func(_ string, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
	}
}

func TestRevocationStatuses(t *testing.T) {
	type flags = []sslstream.ChainStatusFlags
	for _, tc := range []struct {
		name    string
		prepare func(*revocable)
		ignore  sslstream.VerificationFlags
		online  flags
		union   sslstream.ChainStatusFlags
		offline flags
		says    string
	}{
		{"good", func(*revocable) {}, 0, flags{0, 0, 0}, 0, flags{noAnswer, noAnswer, 0}, ""},
		{"the leaf revoked", func(r *revocable) { r.services.Revoke(r.server.Leaf, ocsp.KeyCompromise) }, 0,
			flags{sslstream.StatusRevoked, 0, 0}, sslstream.StatusRevoked, flags{noAnswer, noAnswer, 0}, "(keyCompromise), says http://ca"},
		{"the intermediate revoked", func(r *revocable) { r.rootServices.Revoke(r.intermediate.Certificate, ocsp.CACompromise) }, 0,
			flags{0, sslstream.StatusRevoked, 0}, sslstream.StatusRevoked, nil, "(cACompromise)"},
		{"both revoked", func(r *revocable) {
			r.services.Revoke(r.server.Leaf, 0)
			r.rootServices.Revoke(r.intermediate.Certificate, 0)
		}, 0, flags{sslstream.StatusRevoked, sslstream.StatusRevoked, 0}, sslstream.StatusRevoked, nil, "unspecified"},
		{"the leaf unknown", func(r *revocable) { r.services.Forget(r.server.Leaf) }, 0,
			flags{unknownStatus, 0, 0}, unknownStatus, nil, "not known to the OCSP responder"},
		{"no answer", func(r *revocable) { refuseAll(r.services, r.rootServices) }, 0, flags{noAnswer, noAnswer, 0}, noAnswer, nil, "503"},
		{"no answer, ignored for the leaf", func(r *revocable) { refuseAll(r.services, r.rootServices) }, sslstream.IgnoreEndRevocationUnknown,
			flags{noAnswer, noAnswer, 0}, noAnswer, nil, "503"},
		{"no answer, ignored for all", func(r *revocable) { refuseAll(r.services, r.rootServices) },
			sslstream.IgnoreEndRevocationUnknown | sslstream.IgnoreCertificateAuthorityRevocationUnknown, flags{noAnswer, noAnswer, 0}, 0, nil, ""},
		{"revoked, which cannot be ignored", func(r *revocable) { r.services.Revoke(r.server.Leaf, 0) },
			sslstream.IgnoreEndRevocationUnknown | sslstream.IgnoreCertificateAuthorityRevocationUnknown, flags{sslstream.StatusRevoked, 0, 0}, sslstream.StatusRevoked, nil, ""},
		{"unknown, ignored", func(r *revocable) { r.services.Forget(r.server.Leaf) }, sslstream.IgnoreEndRevocationUnknown, flags{unknownStatus, 0, 0}, 0, nil, ""},
		{"unknown, ignored for others", func(r *revocable) { r.services.Forget(r.server.Leaf) },
			sslstream.IgnoreCertificateAuthorityRevocationUnknown | sslstream.IgnoreRootRevocationUnknown, flags{unknownStatus, 0, 0}, unknownStatus, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRevocable(t)
			tc.prepare(r)
			offline, online := r.policy(sslstream.RevocationOffline), r.policy(sslstream.RevocationOnline)
			if tc.offline != nil {
				assert.Equal(t, tc.offline, flagsOf(r.build(t, offline)), "offline, with nothing remembered")
				assert.Zero(t, r.services.Requests())
			}
			online.VerificationFlags = tc.ignore
			chain := r.build(t, online)
			assert.Equal(t, tc.online, flagsOf(chain), "%v", chain)
			assert.Equal(t, tc.union, statusOf(chain))
			for _, e := range chain.Elements {
				for _, s := range e.Status {
					assert.NotEmpty(t, s.Detail)
					assert.NotContains(t, s.Detail, "\n", "it is for logs, too")
					assert.ErrorContains(t, s.Err, e.Certificate.Subject.CommonName)
				}
			}
			assert.Contains(t, chain.String(), tc.says)
		})
	}
	t.Run("a certificate that names nobody", func(t *testing.T) {
		f := newFixture(t)
		p := f.trust()
		p.RevocationMode = sslstream.RevocationOnline
		chain, err := p.Build(t.Context(), f.server.Leaf, f.intermediate.Certificate)
		require.NoError(t, err)
		assert.Equal(t, flags{noAnswer, noAnswer, 0}, flagsOf(chain))
		assert.Contains(t, chain.String(), "names no OCSP responder and no CRL")
	})
	t.Run("an unknown staple, and nobody who knows more", func(t *testing.T) {
		r := newRevocable(t)
		r.services.Forget(r.server.Leaf)
		co, so := r.options(sslstream.RevocationOnline)
		shown := r.server
		shown.OCSPStaple = r.services.Staple(r.server.Leaf)
		so.ServerCertificate = &shown
		refuseAll(r.services)
		client, server := newStreams(t)
		err, _ := authenticate(t, client, server, co, so)
		chain := authenticationError(t, err).Chain
		assert.Equal(t, unknownStatus, statusOf(chain), "%v", chain)
		assert.Equal(t, 1, strings.Count(chain.Elements[0].Status[0].Detail, "not known to the OCSP responder"), "%v", chain)
		assert.Contains(t, chain.String(), "503")
	})
	t.Run("beside what else is wrong", func(t *testing.T) {
		r := newRevocable(t, testpki.Expired())
		r.services.Revoke(r.server.Leaf, 0)
		chain := r.build(t, r.policy(sslstream.RevocationOnline))
		assert.Equal(t, flags{sslstream.StatusNotTimeValid | sslstream.StatusRevoked, 0, 0}, flagsOf(chain))
		assert.Equal(t, sslstream.StatusNotTimeValid|sslstream.StatusRevoked, statusOf(chain))
	})
	t.Run("at another time", func(t *testing.T) {
		r := newRevocable(t)
		p := r.policy(sslstream.RevocationOnline)
		p.VerificationTime = time.Now().Add(2 * time.Hour)
		chain := r.build(t, p)
		assert.Equal(t, flags{noAnswer, noAnswer, 0}, flagsOf(chain), "the answers have run out then")
		assert.Contains(t, chain.String(), "ran out on")
		assert.Empty(t, r.build(t, r.policy(sslstream.RevocationOnline)).Status, "which says nothing of now")
	})
}

func TestRevocationFlags(t *testing.T) {
	selfSigned := testpki.SelfSigned(t, serverName).Leaf
	for _, tc := range []struct {
		flag    sslstream.RevocationFlag
		chain   []sslstream.ChainStatusFlags // of leaf, intermediate, root
		pinned  sslstream.ChainStatusFlags   // of a leaf in the trust store
		trusted sslstream.ChainStatusFlags   // of a self-signed one in it
		unknown sslstream.ChainStatusFlags   // of a self-signed one that is not
	}{
		{sslstream.RevocationExcludeRoot, []sslstream.ChainStatusFlags{noAnswer, noAnswer, 0}, 0, 0, sslstream.StatusUntrustedRoot | unknownStatus},
		{sslstream.RevocationEntireChain, []sslstream.ChainStatusFlags{noAnswer, noAnswer, noAnswer}, noAnswer, noAnswer, sslstream.StatusUntrustedRoot | unknownStatus},
		{sslstream.RevocationEndCertificateOnly, []sslstream.ChainStatusFlags{noAnswer, 0, 0}, noAnswer, noAnswer, sslstream.StatusUntrustedRoot | unknownStatus},
	} {
		t.Run(fmt.Sprint(tc.flag), func(t *testing.T) {
			r := newRevocable(t)
			p := r.policy(sslstream.RevocationOffline)
			p.RevocationFlag = tc.flag
			assert.Equal(t, tc.chain, flagsOf(r.build(t, p)))
			of := func(leaf *x509.Certificate, roots ...*x509.Certificate) sslstream.ChainStatusFlags {
				p := *p
				p.CustomTrustStore = x509.NewCertPool()
				for _, c := range roots {
					p.CustomTrustStore.AddCert(c)
				}
				chain, err := p.Build(t.Context(), leaf)
				require.NoError(t, err)
				require.Len(t, chain.Elements, 1)
				return flagsOf(chain)[0]
			}
			assert.Equal(t, tc.pinned, of(r.server.Leaf, r.server.Leaf))
			assert.Equal(t, tc.trusted, of(selfSigned, selfSigned))
			assert.Equal(t, tc.unknown, of(selfSigned, r.root.Certificate))
		})
	}
	t.Run("a root that can be asked about", func(t *testing.T) {
		root := testpki.Root(t, "Root")
		s := root.Serve(t)
		root = testpki.Root(t, "Root", testpki.Key(root.Key), testpki.CRL(s.CRLURL()))
		s.Authority = root
		leaf := root.Issue(t, serverName, testpki.CRL(s.CRLURL())).Leaf
		p := sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(root), RevocationMode: sslstream.RevocationOnline, RevocationFlag: sslstream.RevocationEntireChain, HTTPClient: testpki.Client(s)}
		chain, err := p.Build(t.Context(), leaf)
		require.NoError(t, err)
		assert.Empty(t, chain.Status, "%v", chain)
	})
}

func TestRevocationOfHandshakes(t *testing.T) {
	for _, v := range versions {
		for _, checks := range []string{"client", "server"} {
			for _, revoked := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/revoked %v", v.name, checks, revoked), func(t *testing.T) {
					r := newRevocable(t)
					co, so := r.mutual()
					co.EnabledProtocols = v.protocol
					peer := r.server.Leaf
					if checks == "client" {
						co.CertificateChainPolicy, co.CertificateRevocationCheckMode = r.policy(0), sslstream.RevocationOnline
					} else {
						so.CertificateChainPolicy, so.CertificateRevocationCheckMode = r.policy(0), sslstream.RevocationOnline
						peer = r.client.Leaf
					}
					if revoked {
						r.services.Revoke(peer, ocsp.Superseded)
					}
					client, server := newStreams(t)
					clientErr, serverErr := authenticate(t, client, server, co, so)
					assert.Equal(t, checks == "client", client.CheckCertRevocationStatus())
					assert.Equal(t, checks == "server", server.CheckCertRevocationStatus())
					if !revoked {
						require.NoError(t, clientErr)
						require.NoError(t, serverErr)
						exchange(t, client, server)
						assert.Equal(t, 1, r.services.Requests())
						assert.Equal(t, 1, r.rootServices.Requests())
						return
					}
					err := serverErr
					if checks == "client" {
						err = clientErr
					}
					ae := authenticationError(t, err)
					assert.Equal(t, chainErrors, ae.PolicyErrors)
					assert.True(t, ae.Chain.Has(sslstream.StatusRevoked))
					assert.ErrorContains(t, err, "superseded")
				})
			}
		}
	}
	t.Run("the policy's mode counts", func(t *testing.T) {
		r := newRevocable(t)
		r.services.Revoke(r.server.Leaf, 0)
		co, so := r.options(sslstream.RevocationOffline)
		co.CertificateRevocationCheckMode = sslstream.RevocationOnline
		client, server := newStreams(t)
		err, _ := authenticate(t, client, server, co, so)
		assert.Equal(t, noAnswer, statusOf(authenticationError(t, err).Chain))
	})
	t.Run("the callback may forgive", func(t *testing.T) {
		r := newRevocable(t)
		r.services.Revoke(r.server.Leaf, 0)
		co, so := r.options(sslstream.RevocationOnline)
		var seen *sslstream.Chain
		co.RemoteCertificateValidationCallback = func(_ context.Context, _ *sslstream.Stream, _ *x509.Certificate, chain *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
			seen = chain
			return errs &^ sslstream.RemoteCertificateChainErrors, nil
		}
		client, _ := newPair(t, co, so)
		assert.True(t, seen.Has(sslstream.StatusRevoked))
		assert.Empty(t, client.ConnectionState().VerifiedChains)
	})
}

// TestRevocationNotAsked has chains on behalf of which nobody is asked.
func TestRevocationNotAsked(t *testing.T) {
	r := newRevocable(t)
	stranger := testpki.Root(t, "Stranger")
	below := func(ca *testpki.Authority, opts ...testpki.Option) (*x509.Certificate, []*x509.Certificate) {
		leaf := ca.Issue(t, "below.example", append(opts, testpki.OCSP(r.services.OCSPURL()))...)
		return leaf.Leaf, []*x509.Certificate{ca.Certificate}
	}
	named := testpki.OCSP(r.rootServices.OCSPURL())
	end := &testpki.Authority{Certificate: r.server.Leaf, Key: r.server.PrivateKey.(crypto.Signer), Issuer: r.intermediate}
	for _, tc := range []struct {
		name string
		make func() (*x509.Certificate, []*x509.Certificate)
		also sslstream.ChainStatusFlags
	}{
		{"untrusted", func() (*x509.Certificate, []*x509.Certificate) { return below(stranger) }, sslstream.StatusUntrustedRoot},
		{"incomplete", func() (*x509.Certificate, []*x509.Certificate) { return r.server.Leaf, nil }, sslstream.StatusPartialChain},
		{"badly signed", func() (*x509.Certificate, []*x509.Certificate) {
			return below(r.root.Intermediate(t, "CA", named), testpki.BadSignature())
		}, sslstream.StatusNotSignatureValid},
		{"weakly signed", func() (*x509.Certificate, []*x509.Certificate) {
			return below(r.root.Intermediate(t, "CA", named), testpki.SHA1())
		}, sslstream.StatusHasWeakSignature},
		{"issued by who is no CA", func() (*x509.Certificate, []*x509.Certificate) {
			leaf, sent := below(end)
			return leaf, append(sent, r.intermediate.Certificate)
		}, sslstream.StatusInvalidBasicConstraints},
	} {
		t.Run(tc.name, func(t *testing.T) {
			leaf, sent := tc.make()
			p := r.policy(sslstream.RevocationOnline)
			p.VerificationFlags = sslstream.AllowUnknownCertificateAuthority
			chain, err := p.Build(t.Context(), leaf, sent...)
			require.NoError(t, err)
			assert.True(t, slices.ContainsFunc(flagsOf(chain), func(f sslstream.ChainStatusFlags) bool { return f&tc.also != 0 }), "%v", chain)
			assert.NotZero(t, flagsOf(chain)[0]&unknownStatus)
			assert.Zero(t, statusOf(chain)&sslstream.StatusOfflineRevocation, "nobody was asked")
			assert.True(t, chain.Has(unknownStatus), "so that what else is allowed does not accept in silence")
			assert.Contains(t, chain.String(), "not asked about")
		})
	}
	for name, test := range map[string]struct {
		leaf    *x509.Certificate
		sent    []*x509.Certificate
		unknown []bool
	}{
		"a self-signed end certificate":      {stranger.Certificate, nil, []bool{true}},
		"the self-signed root of an unknown": {stranger.Issue(t, "below.example").Leaf, []*x509.Certificate{stranger.Certificate}, []bool{true, false}},
	} {
		t.Run(name+", without its root", func(t *testing.T) {
			p := r.policy(sslstream.RevocationOnline)
			p.RevocationFlag = sslstream.RevocationExcludeRoot
			chain, err := p.Build(t.Context(), test.leaf, test.sent...)
			require.NoError(t, err)
			for i, flags := range flagsOf(chain) {
				assert.Equal(t, test.unknown[i], flags&unknownStatus != 0, "%d: %v", i, chain)
			}
		})
	}
	assert.Zero(t, r.services.Requests()+r.rootServices.Requests())
}

// asked is what Trace.Revocation told.
type asked struct {
	name, source, status string
	failed               bool
}

// tracedRevocation is a context whose trace writes down who was asked.
func tracedRevocation(t *testing.T) (context.Context, func() []asked) {
	var mu sync.Mutex
	var all []asked
	ctx := sslstream.WithTrace(testContext(t), &sslstream.Trace{
		Revocation: func(cert *x509.Certificate, source, status string, took time.Duration, err error) {
			mu.Lock()
			defer mu.Unlock()
			assert.GreaterOrEqual(t, took, time.Duration(0))
			all = append(all, asked{cert.Subject.CommonName, source, status, err != nil})
		},
	})
	return ctx, func() []asked {
		mu.Lock()
		defer mu.Unlock()
		told := all
		all = nil
		return told
	}
}

// TestRevocationSources shows the order: staple, what is remembered, OCSP, CRL.
func TestRevocationSources(t *testing.T) {
	root := testpki.Root(t, "Root")
	s := root.Serve(t)
	cert := root.Issue(t, serverName, testpki.OCSP(s.OCSPURL()), testpki.CRL(s.CRLURL()))
	ctx, told := tracedRevocation(t)
	run := func(staple []byte) error {
		shown := cert
		shown.OCSPStaple = staple
		client, server := newStreams(t)
		done := make(chan error, 1)
		go func() {
			done <- server.AuthenticateAsServer(testContext(t), &sslstream.ServerOptions{ServerCertificate: &shown})
		}()
		err := client.AuthenticateAsClient(ctx, &sslstream.ClientOptions{TargetHost: serverName, DisableTLSResume: true, CertificateChainPolicy: &sslstream.ChainPolicy{
			CustomTrustStore: testpki.Pool(root), RevocationMode: sslstream.RevocationOnline, HTTPClient: testpki.Client(s),
		}})
		<-done
		return err
	}
	refuseAll(s)
	require.Error(t, run(nil))
	assert.Equal(t, []asked{{serverName, s.CRLURL(), "unavailable", true}}, told())
	require.NoError(t, run(s.Staple(cert.Leaf)))
	assert.Equal(t, []asked{{serverName, "staple", "good", false}}, told())
	require.NoError(t, run(nil))
	assert.Equal(t, []asked{{serverName, "cache", "good", false}}, told())
	require.NoError(t, run([]byte("no response")))
	assert.Equal(t, []asked{{serverName, "cache", "good", false}}, told())

	s = root.Serve(t)
	cert = root.Issue(t, serverName, testpki.OCSP(s.OCSPURL()), testpki.CRL(s.CRLURL()))
	s.Forget(cert.Leaf)
	require.Error(t, run(nil))
	assert.Equal(t, []asked{{serverName, s.OCSPURL(), "unknown", true}}, told())

	s = root.Serve(t)
	cert = root.Issue(t, serverName, testpki.OCSP(s.Base+"/nothing"), testpki.CRL(s.CRLURL()))
	s.Revoke(cert.Leaf, 0)
	require.Error(t, run(nil))
	assert.Equal(t, []asked{{serverName, s.CRLURL(), "revoked", true}}, told())
	require.Error(t, run(nil))
	assert.Equal(t, []asked{{serverName, "cache", "revoked", true}}, told())
}

func TestRevocationOfflineReadsWhatOnlineStored(t *testing.T) {
	for name, option := range map[string]func(*testpki.Services) testpki.Option{
		"OCSP": func(s *testpki.Services) testpki.Option { return testpki.OCSP(s.OCSPURL()) },
		"CRL":  func(s *testpki.Services) testpki.Option { return testpki.CRL(s.CRLURL()) },
	} {
		t.Run(name, func(t *testing.T) {
			root := testpki.Root(t, "Root")
			s := root.Serve(t)
			leaf := root.Issue(t, serverName, option(s)).Leaf
			build := func(mode sslstream.RevocationMode, client *http.Client) *sslstream.Chain {
				p := sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(root), RevocationMode: mode, HTTPClient: client}
				chain, err := p.Build(t.Context(), leaf)
				require.NoError(t, err)
				return chain
			}
			assert.Equal(t, noAnswer, statusOf(build(sslstream.RevocationOffline, nil)))
			assert.Empty(t, build(sslstream.RevocationOnline, testpki.Client(s)).Status)
			assert.Empty(t, build(sslstream.RevocationOffline, nil).Status)
			assert.Equal(t, 1, s.Requests())
		})
	}
}

func TestMustStaple(t *testing.T) {
	r := newRevocable(t, testpki.MustStaple())
	good := r.services.Staple(r.server.Leaf)
	stale := r.intermediate.Serve(t)
	stale.OCSP = func(response *testpki.Response) {
		response.Singles[0].ThisUpdate, response.Singles[0].NextUpdate = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	}
	silent := r.intermediate.Serve(t)
	silent.Forget(r.server.Leaf)
	for _, tc := range []struct {
		name   string
		staple []byte
		want   sslstream.ChainStatusFlags
	}{
		{"none", nil, noAnswer},
		{"stale", stale.Staple(r.server.Leaf), noAnswer},
		{"unknown", silent.Staple(r.server.Leaf), noAnswer},
		{"another certificate's", r.services.Staple(r.client.Leaf), noAnswer},
		{"good", good, 0},
	} {
		for _, mode := range []sslstream.RevocationMode{sslstream.RevocationOnline, sslstream.RevocationOffline, sslstream.RevocationNoCheck} {
			t.Run(tc.name+"/"+mode.String(), func(t *testing.T) {
				co, so := r.options(mode)
				co.CertificateChainPolicy.VerificationFlags = sslstream.IgnoreCertificateAuthorityRevocationUnknown
				shown := r.server
				shown.OCSPStaple = tc.staple
				so.ServerCertificate = &shown
				client, server := newStreams(t)
				err, _ := authenticate(t, client, server, co, so)
				if tc.want == 0 || mode == sslstream.RevocationNoCheck {
					require.NoError(t, err)
					return
				}
				chain := authenticationError(t, err).Chain
				assert.Equal(t, tc.want, statusOf(chain), "although a responder says that it is good: %v", chain)
				assert.Contains(t, chain.String(), "RFC 7633")
			})
		}
	}
	t.Run("revoked", func(t *testing.T) {
		r := newRevocable(t, testpki.MustStaple())
		r.services.Revoke(r.server.Leaf, 0)
		co, so := r.options(sslstream.RevocationOnline)
		client, server := newStreams(t)
		err, _ := authenticate(t, client, server, co, so)
		assert.Equal(t, sslstream.StatusRevoked, statusOf(authenticationError(t, err).Chain))
	})
	t.Run("a pinned certificate is asked nothing", func(t *testing.T) {
		co, so := r.options(sslstream.RevocationOnline)
		co.CertificateChainPolicy.CustomTrustStore = x509.NewCertPool()
		co.CertificateChainPolicy.CustomTrustStore.AddCert(r.server.Leaf)
		newPair(t, co, so)
	})
	t.Run("clients and Build cannot staple", func(t *testing.T) {
		co, so := r.mutual()
		so.CertificateChainPolicy = r.policy(sslstream.RevocationOnline)
		newPair(t, co, so)
		assert.Empty(t, r.build(t, r.policy(sslstream.RevocationOnline)).Status)
	})
}

func TestRevocationOnResumedSessions(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name+"/checked again, and forgotten where it is refused", func(t *testing.T) {
			r := newRevocable(t)
			co, so := r.options(sslstream.RevocationOnline)
			co.EnabledProtocols = v.protocol
			context, err := sslstream.NewCertificateContext(r.server, &sslstream.CertificateContextOptions{Offline: true})
			require.NoError(t, err)
			so.ServerCertificate, so.ServerCertificateContext = nil, context
			client, _ := resume(t, co, so)
			require.True(t, client.ConnectionState().DidResume)
			requests := r.services.Requests()
			require.Equal(t, 1, requests, "what is remembered is not asked again")

			// Another check of the same certificate finds out that it is revoked.
			r.services.Revoke(r.server.Leaf, 0)
			expire(t, r)
			client, server := newStreams(t)
			err, _ = authenticate(t, client, server, co, so)
			assert.True(t, authenticationError(t, err).Chain.Has(sslstream.StatusRevoked))

			// The server has a new certificate, and would still resume the session.
			renewed := r.intermediate.Issue(t, serverName, testpki.OCSP(r.services.OCSPURL()))
			so = so.Clone()
			so.ServerCertificateContext, so.ServerCertificate = nil, &renewed
			client, _ = newPair(t, co, so)
			assert.False(t, client.ConnectionState().DidResume)
		})
		t.Run(v.name+"/a session does not outlive its staple", func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				r := newRevocable(t, testpki.MustStaple())
				r.services.Lifetime, r.rootServices.Lifetime = time.Hour, 24*time.Hour
				co, so := r.options(sslstream.RevocationOnline)
				co.EnabledProtocols = v.protocol
				stapling, err := sslstream.NewCertificateContext(r.server, &sslstream.CertificateContextOptions{HTTPClient: r.http})
				require.NoError(t, err)
				so.ServerCertificate, so.ServerCertificateContext = nil, stapling
				lax := r.clientOptions()
				closeBoth(pairOver(t, carriers[1], lax, so)) // which has the staple fetched
				synctest.Wait()
				pair := func() bool {
					client, server := pairOver(t, carriers[1], co, so)
					exchange(t, client, server)
					defer closeBoth(client, server)
					return client.ConnectionState().DidResume
				}
				assert.False(t, pair())
				assert.True(t, pair())
				time.Sleep(40 * time.Minute)
				assert.True(t, pair(), "which has the staple renewed")
				synctest.Wait()
				time.Sleep(30 * time.Minute)
				assert.False(t, pair(), "the session's staple has run out, the server's has not")
				assert.True(t, pair())
			})
		})
	}
}

// TestSessionsOfOtherChecks shares a session cache with who checks less: a full handshake brings what a session lacks.
func TestSessionsOfOtherChecks(t *testing.T) {
	for name, lenient := range map[string]func(*revocable) *sslstream.ClientOptions{
		"none": func(r *revocable) *sslstream.ClientOptions { return r.clientOptions() },
		"one that ignores": func(r *revocable) *sslstream.ClientOptions {
			co, _ := r.options(sslstream.RevocationOnline)
			co.CertificateChainPolicy.VerificationFlags = sslstream.IgnoreEndRevocationUnknown
			return co
		},
	} {
		t.Run(name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				r := newRevocable(t, testpki.MustStaple())
				r.services.Lifetime, r.rootServices.Lifetime = time.Hour, 24*time.Hour
				strict, so := r.options(sslstream.RevocationOnline)
				stapling, err := sslstream.NewCertificateContext(r.server, &sslstream.CertificateContextOptions{HTTPClient: r.http})
				require.NoError(t, err)
				so.ServerCertificate, so.ServerCertificateContext = nil, stapling
				lax := lenient(r)
				lax.SessionCache = tls.NewLRUClientSessionCache(8)
				strict.SessionCache = lax.SessionCache
				client, server := pairOver(t, carriers[1], lax, so)
				exchange(t, client, server)
				closeBoth(client, server) // before there is a staple
				synctest.Wait()
				for _, test := range []struct {
					co      *sslstream.ClientOptions
					resumes bool
				}{{strict, false}, {strict, true}, {lax, true}, {strict, true}} {
					client, server := pairOver(t, carriers[1], test.co, so)
					exchange(t, client, server)
					assert.Equal(t, test.resumes, client.ConnectionState().DidResume)
					closeBoth(client, server)
				}
			})
		})
	}
	t.Run("offline, by what has run out", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			r := newRevocable(t)
			r.services.Lifetime, r.rootServices.Lifetime = time.Hour, 24*time.Hour
			co, so := r.options(sslstream.RevocationOffline)
			r.build(t, r.policy(sslstream.RevocationOnline)) // which is remembered
			// One value, whose tickets both certificates' sessions have.
			shown := r.server
			so.ServerCertificate = nil
			so.ServerCertificateSelectionCallback = func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*tls.Certificate, error) {
				return &shown, nil
			}
			pair := func() bool {
				client, server := pairOver(t, carriers[1], co, so)
				exchange(t, client, server)
				defer closeBoth(client, server)
				return client.ConnectionState().DidResume
			}
			assert.False(t, pair())
			assert.True(t, pair())
			time.Sleep(time.Hour + time.Minute)
			shown.OCSPStaple = r.services.Staple(r.server.Leaf)
			assert.False(t, pair(), "the server staples by now, which a session does not bring")
			assert.True(t, pair())
		})
	})
}

func closeBoth(client, server *sslstream.Stream) {
	go client.Close()
	server.Close()
}

// expire has what is remembered of the server's certificate run out.
func expire(t *testing.T, r *revocable) {
	// A newer answer replaces what is remembered: the peer's staple brings it.
	co, so := r.options(sslstream.RevocationOffline)
	co.DisableTLSResume = true
	co.CertificateChainPolicy.RevocationFlag = sslstream.RevocationEndCertificateOnly
	shown := r.server
	shown.OCSPStaple = r.services.Staple(r.server.Leaf)
	so.ServerCertificate = &shown
	client, server := newStreams(t)
	err, _ := authenticate(t, client, server, co, so)
	require.True(t, authenticationError(t, err).Chain.Has(sslstream.StatusRevoked))
}

func TestRevocationTimeouts(t *testing.T) {
	hang := func(_ string, _ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	}
	t.Run("URLRetrievalTimeout", func(t *testing.T) {
		for given, want := range map[time.Duration]time.Duration{0: 15 * time.Second, time.Second: time.Second} {
			testpki.Bubble(t, func(t *testing.T) {
				r := newRevocable(t)
				r.services.Instead, r.rootServices.Instead = hang, hang
				p := r.policy(sslstream.RevocationOnline)
				p.URLRetrievalTimeout = given
				began := time.Now()
				chain := r.build(t, p)
				assert.Equal(t, want, time.Since(began), "for all certificates together")
				assert.Equal(t, noAnswer, statusOf(chain))
				assert.ErrorIs(t, chain.Status[0].Err, context.DeadlineExceeded)
				synctest.Wait()
			})
		}
	})
	t.Run("the context's end", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			r := newRevocable(t)
			r.services.Instead = hang
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			began := time.Now()
			_, err := r.policy(sslstream.RevocationOnline).Build(ctx, r.server.Leaf, r.intermediate.Certificate)
			assert.ErrorIs(t, err, context.Canceled)
			assert.Equal(t, time.Second, time.Since(began))
			synctest.Wait()
			r.services.Instead = nil
			assert.Empty(t, r.build(t, r.policy(sslstream.RevocationOnline)).Status, "it is no failure to be remembered")
		})
	})
	t.Run("the context's end in a handshake", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			r := newRevocable(t)
			r.services.Instead = hang
			co, so := r.options(sslstream.RevocationOnline)
			co.RemoteCertificateValidationCallback = func(context.Context, *sslstream.Stream, *x509.Certificate, *sslstream.Chain, sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
				t.Error("there is no verdict to speak about")
				return 0, nil
			}
			client, server := streamsOver(t, carriers[1])
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- server.AuthenticateAsServer(t.Context(), so) }()
			began := time.Now()
			err := client.AuthenticateAsClient(ctx, co)
			assert.Equal(t, time.Second, time.Since(began))
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Zero(t, authenticationError(t, err).PolicyErrors)
			client.Close()
			assert.Error(t, <-done)
			synctest.Wait()
		})
	})
}

func TestRevocationOneRequestForManyHandshakes(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		r := newRevocable(t)
		r.services.Instead = func(string, http.ResponseWriter, *http.Request) bool { time.Sleep(time.Second); return false }
		co, so := r.options(sslstream.RevocationOnline)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				a, b := testpki.Pipe(t)
				client, server := sslstream.New(a), sslstream.New(b)
				done := make(chan error, 1)
				go func() { done <- server.AuthenticateAsServer(t.Context(), so) }()
				assert.NoError(t, client.AuthenticateAsClient(t.Context(), co))
				assert.NoError(t, <-done)
				closeBoth(client, server)
			})
		}
		all.Wait()
		assert.Equal(t, 1, r.services.Requests())
		assert.Equal(t, 1, r.rootServices.Requests())
	})
}

// TestRevocationWithSeveralChains cross-signs an intermediate: the way by the root that has revoked it is closed, the other is
// not.
func TestRevocationWithSeveralChains(t *testing.T) {
	first, second := testpki.Root(t, "First Root"), testpki.Root(t, "Second Root")
	one, two := first.Serve(t), second.Serve(t)
	byFirst := first.Intermediate(t, "CA", testpki.OCSP(one.OCSPURL()))
	bySecond := second.Intermediate(t, "CA", testpki.Key(byFirst.Key), testpki.OCSP(two.OCSPURL()))
	s := byFirst.Serve(t)
	leaf := byFirst.Issue(t, serverName, testpki.OCSP(s.OCSPURL())).Leaf
	p := sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(first, second), RevocationMode: sslstream.RevocationOnline, HTTPClient: testpki.Client(one, two, s)}
	sent := [][]*x509.Certificate{{byFirst.Certificate, bySecond.Certificate}, {bySecond.Certificate, byFirst.Certificate}}
	build := func(sent []*x509.Certificate) *sslstream.Chain {
		chain, err := p.Build(t.Context(), leaf, sent...)
		require.NoError(t, err)
		return chain
	}
	one.Revoke(byFirst.Certificate, ocsp.Superseded)
	for _, s := range sent {
		chain := build(s)
		require.Empty(t, chain.Status, "%v", chain)
		assert.True(t, chain.Elements[2].Certificate.Equal(second.Certificate))
	}
	p.CustomTrustStore = testpki.Pool(first)
	for _, s := range sent {
		assert.Equal(t, sslstream.StatusRevoked, statusOf(build(s)))
	}
}

// BenchmarkRevocationCheck is what a check by what is remembered adds to a verdict.
func BenchmarkRevocationCheck(b *testing.B) {
	r := newRevocable(b)
	for _, mode := range []sslstream.RevocationMode{sslstream.RevocationNoCheck, sslstream.RevocationOnline} {
		b.Run(mode.String(), func(b *testing.B) {
			p := r.policy(mode)
			r.build(b, p)
			b.ReportAllocs()
			for b.Loop() {
				if chain, err := p.Build(b.Context(), r.server.Leaf, r.intermediate.Certificate); err != nil || len(chain.Status) > 0 {
					b.Fatal(chain, err)
				}
			}
		})
	}
}
