package sslstream_test

import (
	"crypto/x509"
	"net/http"
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

func TestCertificateContextDownloads(t *testing.T) {
	i := newIncomplete(t)
	inner, outer := i.intermediate.Certificate, i.outer.Certificate
	subjects := func(c *sslstream.CertificateContext) (names []string) {
		for _, c := range c.IntermediateCertificates() {
			names = append(names, c.Subject.CommonName)
		}
		return names
	}
	for _, tc := range []struct {
		name     string
		options  sslstream.CertificateContextOptions
		want     []string
		requests int
	}{
		{"offline", sslstream.CertificateContextOptions{Offline: true}, nil, 0},
		{"both given", sslstream.CertificateContextOptions{AdditionalCertificates: []*x509.Certificate{outer, inner, i.root.Certificate}}, []string{"Inner", "Outer"}, 0},
		{"one given", sslstream.CertificateContextOptions{AdditionalCertificates: []*x509.Certificate{inner}}, []string{"Inner", "Outer"}, 1},
		{"none given", sslstream.CertificateContextOptions{}, []string{"Inner", "Outer"}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			i.http = testpki.Client(i.services, i.rootServices) // another client's downloads are not remembered
			before := i.services.Requests() + i.rootServices.Requests()
			tc.options.HTTPClient = i.http
			c, err := sslstream.NewCertificateContext(i.server, &tc.options)
			require.NoError(t, err)
			assert.Equal(t, tc.want, subjects(c))
			assert.Equal(t, tc.requests, i.services.Requests()+i.rootServices.Requests()-before)
			if tc.want != nil {
				newPair(t, i.clientOptions(), &sslstream.ServerOptions{ServerCertificateContext: c})
			}
		})
	}
	t.Run("the root is not sent", func(t *testing.T) {
		root := testpki.Root(t, "Root")
		s := root.Serve(t)
		cert := root.Issue(t, serverName, testpki.IssuerURL(s.IssuerURL()))
		c, err := sslstream.NewCertificateContext(cert, &sslstream.CertificateContextOptions{HTTPClient: testpki.Client(s)})
		require.NoError(t, err)
		assert.Empty(t, c.IntermediateCertificates())
		assert.Equal(t, 1, s.Requests())
	})
	t.Run("what cannot be had is no error", func(t *testing.T) {
		i := newIncomplete(t)
		refuseAll(i.rootServices)
		c, err := sslstream.NewCertificateContext(i.server, &sslstream.CertificateContextOptions{HTTPClient: i.http})
		require.NoError(t, err)
		assert.Equal(t, []string{"Inner"}, subjects(c))
	})
	t.Run("a silent server", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			i := newIncomplete(t)
			i.services.Instead = hangUntilDone
			began := time.Now()
			_, err := sslstream.NewCertificateContext(i.server, &sslstream.CertificateContextOptions{HTTPClient: i.http})
			require.NoError(t, err)
			assert.Equal(t, 15*time.Second, time.Since(began))
			synctest.Wait()
		})
	})
}

// hangUntilDone keeps a request until it is given up.
func hangUntilDone(_ string, _ http.ResponseWriter, r *http.Request) bool {
	<-r.Context().Done()
	return true
}

// stapling is a server that staples, and a client that looks.
type stapling struct {
	t       *testing.T
	r       *revocable
	context *sslstream.CertificateContext
}

func newStapling(t *testing.T, r *revocable) *stapling {
	t.Helper()
	c, err := sslstream.NewCertificateContext(r.server, &sslstream.CertificateContextOptions{HTTPClient: r.http})
	require.NoError(t, err)
	return &stapling{t, r, c}
}

// handshake is what is stapled.
func (s *stapling) handshake() []byte {
	s.t.Helper()
	co := s.r.clientOptions()
	co.DisableTLSResume = true
	a, b := testpki.Pipe(s.t)
	client, server := newStream(s.t, a), newStream(s.t, b)
	clientErr, serverErr := authenticate(s.t, client, server, co, &sslstream.ServerOptions{ServerCertificateContext: s.context})
	require.NoError(s.t, clientErr)
	require.NoError(s.t, serverErr)
	staple := client.ConnectionState().OCSPResponse
	a.Close() // before the streams, which would wait for each other
	b.Close()
	client.Close()
	server.Close()
	return staple
}

func TestStapling(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			r := newRevocable(t)
			c, err := sslstream.NewCertificateContext(r.server, &sslstream.CertificateContextOptions{HTTPClient: r.http})
			require.NoError(t, err)
			assert.Zero(t, r.services.Requests(), "nothing is fetched before there is a handshake")
			so := &sslstream.ServerOptions{ServerCertificateContext: c}
			lax := r.clientOptions()
			lax.EnabledProtocols = v.protocol
			client, _ := newPair(t, lax, so)
			assert.Empty(t, client.ConnectionState().OCSPResponse)

			require.Eventually(t, func() bool { return r.services.Requests() == 1 }, 5*time.Second, time.Millisecond)
			strict := r.clientOptions()
			strict.EnabledProtocols = v.protocol
			strict.CertificateChainPolicy.RevocationMode = sslstream.RevocationOffline
			strict.CertificateChainPolicy.VerificationFlags = sslstream.IgnoreCertificateAuthorityRevocationUnknown
			require.Eventually(t, func() bool {
				client, server := newStreams(t)
				err, _ := authenticate(t, client, server, strict, so)
				return err == nil
			}, 5*time.Second, time.Millisecond, "the staple alone says that the certificate is good")
		})
	}
	t.Run("no handshake waits", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			r := newRevocable(t)
			r.services.Instead = hangUntilDone
			s := newStapling(t, r)
			began := time.Now()
			for range 3 {
				assert.Empty(t, s.handshake())
			}
			assert.Zero(t, time.Since(began))
			time.Sleep(time.Minute)
			assert.Equal(t, 1, r.services.Requests(), "one request at a time")
		})
	})
	t.Run("a certificate without a context is sent as given", func(t *testing.T) {
		r := newRevocable(t)
		given := r.server
		given.OCSPStaple = []byte("whatever")
		client, _ := newPair(t, r.clientOptions(), &sslstream.ServerOptions{ServerCertificate: &given})
		assert.Equal(t, given.OCSPStaple, client.ConnectionState().OCSPResponse)
		client, _ = newPair(t, r.clientOptions(), &sslstream.ServerOptions{ServerCertificate: &r.server})
		assert.Empty(t, client.ConnectionState().OCSPResponse)
		assert.Zero(t, r.services.Requests())
	})
	t.Run("a client's context asks for nothing", func(t *testing.T) {
		r := newRevocable(t)
		co, so := r.mutual()
		c, err := sslstream.NewCertificateContext(r.client, &sslstream.CertificateContextOptions{HTTPClient: r.http})
		require.NoError(t, err)
		co.ClientCertificates, co.ClientCertificateContext = nil, c
		newPair(t, co, so)
		assert.Zero(t, r.services.Requests())
	})
	t.Run("by the root's own responder", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			r := newRevocable(t)
			r.server = r.root.Issue(t, serverName, testpki.OCSP(r.rootServices.OCSPURL()))
			c, err := sslstream.NewCertificateContext(r.server, &sslstream.CertificateContextOptions{
				HTTPClient: r.http, AdditionalCertificates: []*x509.Certificate{r.root.Certificate},
			})
			require.NoError(t, err)
			assert.Empty(t, c.IntermediateCertificates())
			s := &stapling{t, r, c}
			assert.Empty(t, s.handshake())
			synctest.Wait()
			assert.NotEmpty(t, s.handshake())
		})
	})
}

func TestStapleRenewal(t *testing.T) {
	t.Run("half way to its end", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			r := newRevocable(t)
			s := newStapling(t, r)
			s.handshake()
			synctest.Wait()
			first := s.handshake()
			require.NotEmpty(t, first)
			time.Sleep(29 * time.Minute)
			assert.Equal(t, first, s.handshake())
			assert.Equal(t, 1, r.services.Requests())
			time.Sleep(2 * time.Minute)
			assert.Equal(t, first, s.handshake(), "it still counts")
			synctest.Wait()
			assert.Equal(t, 2, r.services.Requests())
			second := s.handshake()
			assert.NotEqual(t, first, second)
			assert.NotEmpty(t, second)
		})
	})
	t.Run("failures, and never one that has run out", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			r := newRevocable(t)
			s := newStapling(t, r)
			s.handshake()
			synctest.Wait()
			require.NotEmpty(t, s.handshake())
			refuseAll(r.services)
			time.Sleep(31 * time.Minute)
			before := r.services.Asked("GET ocsp")
			began := time.Now()
			var tried []time.Duration
			for range 28 * 12 {
				require.NotEmpty(t, s.handshake())
				synctest.Wait()
				if now := r.services.Asked("GET ocsp"); now > before {
					before = now
					tried = append(tried, time.Since(began))
				}
				time.Sleep(5 * time.Second)
			}
			want := []time.Duration{0, 5, 15, 35, 75, 155, 315, 615, 915, 1215, 1515}
			require.Len(t, tried, len(want))
			for i := range want {
				assert.Equal(t, want[i]*time.Second, tried[i], "each time twice as much later, up to five minutes")
			}
			time.Sleep(2 * time.Minute)
			assert.Empty(t, s.handshake(), "it has run out")
			synctest.Wait()
			r.services.Instead = nil
			time.Sleep(5 * time.Minute)
			s.handshake()
			synctest.Wait()
			assert.NotEmpty(t, s.handshake())
		})
	})
	t.Run("revoked meanwhile", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			r := newRevocable(t)
			s := newStapling(t, r)
			s.handshake()
			synctest.Wait()
			require.NotEmpty(t, s.handshake())
			r.services.Revoke(r.server.Leaf, 0)
			time.Sleep(31 * time.Minute)
			s.handshake()
			synctest.Wait()
			assert.Empty(t, s.handshake(), "the old response counts still, but is known to be no longer true")
			r.services.OCSP = func(a *testpki.Response) {
				a.Singles[0].Status, a.Singles[0].ThisUpdate = ocsp.Good, time.Now().Add(-40*time.Minute)
			}
			time.Sleep(10 * time.Minute)
			s.handshake()
			synctest.Wait()
			assert.Empty(t, s.handshake(), "nor is what a proxy has kept")
		})
	})
	t.Run("by an older response", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			r := newRevocable(t)
			s := newStapling(t, r)
			s.handshake()
			synctest.Wait()
			first := s.handshake()
			require.NotEmpty(t, first)
			r.services.OCSP = func(a *testpki.Response) {
				a.Singles[0].ThisUpdate, a.Singles[0].NextUpdate = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
			}
			time.Sleep(31 * time.Minute)
			s.handshake()
			synctest.Wait()
			assert.Equal(t, 3, r.services.Requests(), "by POST, too, which may have a later one")
			assert.Equal(t, first, s.handshake(), "which does not replace it")
		})
	})
	t.Run("an older response that counts for longer", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			r := newRevocable(t)
			older := time.Now().Add(-time.Minute)
			r.services.Lifetime = 10 * time.Minute
			s := newStapling(t, r)
			s.handshake()
			synctest.Wait()
			require.NotEmpty(t, s.handshake())
			r.services.OCSP = func(a *testpki.Response) {
				a.Singles[0].ThisUpdate, a.Singles[0].NextUpdate = older, older.Add(24*time.Hour)
			}
			time.Sleep(11 * time.Minute)
			assert.Empty(t, s.handshake())
			synctest.Wait()
			assert.NotEmpty(t, s.handshake())
		})
	})
	t.Run("another responder", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			r := newRevocable(t)
			down := r.intermediate.Serve(t)
			refuseAll(down)
			r.http = testpki.Client(down, r.services, r.rootServices)
			r.server = r.intermediate.Issue(t, serverName, testpki.OCSP(down.OCSPURL(), r.services.OCSPURL()))
			s := newStapling(t, r)
			s.handshake()
			synctest.Wait()
			require.NotEmpty(t, s.handshake())
			asked := down.Requests()
			time.Sleep(31 * time.Minute)
			s.handshake()
			synctest.Wait()
			assert.Equal(t, asked, down.Requests(), "the one that answered is asked first")
			assert.Equal(t, 2, r.services.Requests())
		})
	})
}

func TestStaplesThatDoNotCount(t *testing.T) {
	for name, spoil := range map[string]func(*revocable){
		"revoked": func(r *revocable) { r.services.Revoke(r.server.Leaf, 0) },
		"unknown": func(r *revocable) { r.services.Forget(r.server.Leaf) },
		"another's": func(r *revocable) {
			r.services.OCSP = func(a *testpki.Response) { a.Singles[0].Serial = r.client.Leaf.SerialNumber }
		},
		"badly signed": func(r *revocable) { r.services.OCSP = func(a *testpki.Response) { a.Mangle = true } },
		"not valid yet": func(r *revocable) {
			r.services.OCSP = func(a *testpki.Response) { a.Singles[0].ThisUpdate = time.Now().Add(time.Hour) }
		},
		"run out": func(r *revocable) {
			r.services.OCSP = func(a *testpki.Response) {
				a.Singles[0].ThisUpdate, a.Singles[0].NextUpdate = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				r := newRevocable(t)
				spoil(r)
				s := newStapling(t, r)
				for range 3 {
					assert.Empty(t, s.handshake())
					synctest.Wait()
				}
				assert.NotZero(t, r.services.Requests())

				r.server.OCSPStaple = r.services.Staple(r.server.Leaf)
				given, err := sslstream.NewCertificateContext(r.server, &sslstream.CertificateContextOptions{Offline: true})
				require.NoError(t, err)
				s.context = given
				assert.Empty(t, s.handshake(), "given in the certificate")
			})
		})
	}
	t.Run("a good one that is given", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			r := newRevocable(t)
			r.server.OCSPStaple = r.services.Staple(r.server.Leaf)
			for _, offline := range []bool{true, false} {
				c, err := sslstream.NewCertificateContext(r.server, &sslstream.CertificateContextOptions{Offline: offline, HTTPClient: r.http})
				require.NoError(t, err)
				s := &stapling{t, r, c}
				assert.Equal(t, r.server.OCSPStaple, s.handshake())
				synctest.Wait()
				assert.Zero(t, r.services.Requests())
			}
			time.Sleep(time.Hour + time.Minute)
			c, err := sslstream.NewCertificateContext(r.server, &sslstream.CertificateContextOptions{Offline: true})
			require.NoError(t, err)
			assert.Empty(t, (&stapling{t, r, c}).handshake())
		})
	})
}

// TestStaplingLeavesNothing drops contexts while they fetch: synctest fails where a goroutine is left.
func TestStaplingLeavesNothing(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		r := newRevocable(t)
		r.services.Instead = hangUntilDone
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				c, err := sslstream.NewCertificateContext(r.server, &sslstream.CertificateContextOptions{HTTPClient: testpki.Client(r.services)})
				assert.NoError(t, err)
				a, b := testpki.Pipe(t)
				client, server := sslstream.New(a), sslstream.New(b)
				done := make(chan error, 1)
				go func() {
					done <- server.AuthenticateAsServer(t.Context(), &sslstream.ServerOptions{ServerCertificateContext: c})
				}()
				assert.NoError(t, client.AuthenticateAsClient(t.Context(), r.clientOptions()))
				assert.NoError(t, <-done)
				closeBoth(client, server)
			})
		}
		all.Wait()
		assert.Equal(t, 10, r.services.Requests())
		time.Sleep(15 * time.Second)
		synctest.Wait()
	})
}
