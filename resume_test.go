package sslstream_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// connect makes one session, reads its ticket, and reports whether it was resumed.
func connect(t *testing.T, co *sslstream.ClientOptions, so *sslstream.ServerOptions, opts ...sslstream.Option) bool {
	t.Helper()
	client, server := newPair(t, co, so, opts...)
	exchange(t, client, server)
	resumed := client.Security().Resumed
	require.Equal(t, resumed, server.Security().Resumed)
	require.Equal(t, resumed, client.ConnectionState().DidResume)
	require.NoError(t, client.Close())
	require.NoError(t, server.Close())
	return resumed
}

func TestResumption(t *testing.T) {
	f := newFixture(t)
	second := f.intermediate.Issue(t, "client.example", testpki.EKU(x509.ExtKeyUsageClientAuth))
	renewed := f.intermediate.Issue(t, serverName)
	type change func(*sslstream.ClientOptions, *sslstream.ServerOptions)
	nothing := change(func(*sslstream.ClientOptions, *sslstream.ServerOptions) {})
	for _, tc := range []struct {
		name    string
		always  change // how both sessions are made
		then    change // what is different the second time, with options made anew
		resumed bool
	}{
		{"nothing", nothing, nothing, true},
		{"DisableTLSResume on the client", nothing, func(co *sslstream.ClientOptions, _ *sslstream.ServerOptions) { co.DisableTLSResume = true }, false},
		{"DisableTLSResume on the server", nothing, func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions) { so.DisableTLSResume = true }, false},
		{"no target host", func(co *sslstream.ClientOptions, _ *sslstream.ServerOptions) {
			co.TargetHost, co.RemoteCertificateValidationCallback = "", accept
		}, nothing, false},
		{"IP address", func(co *sslstream.ClientOptions, _ *sslstream.ServerOptions) {
			co.TargetHost, co.RemoteCertificateValidationCallback = "127.0.0.1", accept
		}, nothing, true},
		{"another host", func(co *sslstream.ClientOptions, _ *sslstream.ServerOptions) {
			co.RemoteCertificateValidationCallback = accept
		}, func(co *sslstream.ClientOptions, _ *sslstream.ServerOptions) { co.TargetHost = "other.example" }, false},
		{"another ALPN of the client's", func(co *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			co.ApplicationProtocols, so.ApplicationProtocols = []string{"a"}, []string{"a", "b"}
		}, func(co *sslstream.ClientOptions, _ *sslstream.ServerOptions) { co.ApplicationProtocols = []string{"b"} }, false},
		{"another ALPN of the server's", func(co *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			co.ApplicationProtocols, so.ApplicationProtocols = []string{"a", "b"}, []string{"a"}
		}, func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions) { so.ApplicationProtocols = []string{"b"} }, false},
		{"other protocols of the client's", nothing, func(co *sslstream.ClientOptions, _ *sslstream.ServerOptions) {
			co.EnabledProtocols |= tls11
		}, false},
		{"other protocols of the server's", nothing, func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			so.EnabledProtocols = tls11 | tls12 | tls13
		}, false},
		{"other suites of the client's", nothing, func(co *sslstream.ClientOptions, _ *sslstream.ServerOptions) {
			co.CipherSuites = []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
		}, false},
		{"other suites of the server's", nothing, func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			so.CipherSuites = []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
		}, false},
		{"with a client certificate", func(co *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			co.ClientCertificates, so.ClientCertificateRequired = []tls.Certificate{f.client}, true
		}, nothing, true},
		{"another client certificate", func(co *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			co.ClientCertificates, so.ClientCertificateRequired = []tls.Certificate{f.client}, true
		}, func(co *sslstream.ClientOptions, _ *sslstream.ServerOptions) {
			co.ClientCertificates = []tls.Certificate{second}
		}, false},
		{"no client certificate any more", func(co *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			co.ClientCertificates, so.ClientCertificateRequired = []tls.Certificate{f.client}, true
			so.RemoteCertificateValidationCallback = accept
		}, func(co *sslstream.ClientOptions, _ *sslstream.ServerOptions) { co.ClientCertificates = nil }, false},
		{"a client certificate is required now", func(co *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			co.ClientCertificates = []tls.Certificate{f.client}
		}, func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions) { so.ClientCertificateRequired = true }, false},
		{"a client certificate is not required any more", func(co *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			co.ClientCertificates, so.ClientCertificateRequired = []tls.Certificate{f.client}, true
		}, func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions) { so.ClientCertificateRequired = false }, false},
		{"required, none given, forgiven", func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			so.ClientCertificateRequired, so.RemoteCertificateValidationCallback = true, accept
		}, nothing, false},
		{"the client's callback chose a certificate", func(co *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			so.ClientCertificateRequired = true
			co.LocalCertificateSelectionCallback = func(context.Context, *sslstream.Stream, sslstream.CertificateRequest) (*tls.Certificate, error) {
				return &f.client, nil
			}
		}, nothing, false},
		{"the client's callback was not asked", func(co *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			co.LocalCertificateSelectionCallback = func(context.Context, *sslstream.Stream, sslstream.CertificateRequest) (*tls.Certificate, error) {
				return &f.client, nil
			}
		}, nothing, true},
		{"the server's certificate was renewed", nothing, func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions) { so.ServerCertificate = &renewed }, false},
		{"the server's callback chooses the same", func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			so.ServerCertificate = nil
			so.ServerCertificateSelectionCallback = func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*tls.Certificate, error) {
				return &f.server, nil
			}
		}, nothing, true},
		{"the server's callback chooses another", func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			so.ServerCertificate = nil
			so.ServerCertificateSelectionCallback = func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*tls.Certificate, error) {
				return &f.server, nil
			}
		}, func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			so.ServerCertificateSelectionCallback = func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*tls.Certificate, error) {
				return &renewed, nil
			}
		}, false},
		{"the server demands more", nothing, func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			so.Require = &sslstream.Requirements{ForwardSecrecy: true}
		}, false},
		{"the server trusts others", func(co *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			co.ClientCertificates, so.ClientCertificateRequired = []tls.Certificate{f.client}, true
		}, func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			so.CertificateChainPolicy = &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(f.root, testpki.Root(t, "Another"))}
		}, false},
	} {
		for _, v := range versions {
			t.Run(tc.name+"/"+v.name, func(t *testing.T) {
				cache := tls.NewLRUClientSessionCache(8)
				key := [][32]byte{{1, 2, 3}}
				make := func(then change) (*sslstream.ClientOptions, *sslstream.ServerOptions) {
					co, so := f.clientOptions(), f.serverOptions()
					co.EnabledProtocols, co.SessionCache = v.protocol, cache
					require.NoError(t, so.SetSessionTicketKeys(key))
					tc.always(co, so)
					then(co, so)
					return co, so
				}
				co, so := make(nothing)
				require.False(t, connect(t, co, so))
				co, so = make(tc.then)
				assert.Equal(t, tc.resumed, connect(t, co, so))
				co, so = make(nothing)
				connect(t, co, so) // and nothing is broken after it
			})
		}
	}
}

func TestResumptionByValueAndContext(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			client := func() *sslstream.ClientOptions {
				co := f.clientOptions()
				co.EnabledProtocols = v.protocol
				return co
			}
			t.Run("sharing the values", func(t *testing.T) {
				co, so := client(), f.serverOptions()
				assert.False(t, connect(t, co, so))
				assert.True(t, connect(t, co, so))
			})
			t.Run("a clone has a fresh cache", func(t *testing.T) {
				co, so := client(), f.serverOptions()
				connect(t, co, so)
				assert.False(t, connect(t, co.Clone(), so))
			})
			t.Run("a clone of the server's has fresh keys", func(t *testing.T) {
				co, so := client(), f.serverOptions()
				connect(t, co, so)
				assert.False(t, connect(t, co, so.Clone()))
			})
			t.Run("unless they were given", func(t *testing.T) {
				co, so := client(), f.serverOptions()
				require.NoError(t, so.SetSessionTicketKeys([][32]byte{{9}}))
				connect(t, co, so)
				assert.True(t, connect(t, co, so.Clone()))
			})
			t.Run("a context shared by options made per connection", func(t *testing.T) {
				held, err := sslstream.NewCertificateContext(f.server, nil)
				require.NoError(t, err)
				co := client()
				server := func() *sslstream.ServerOptions {
					return &sslstream.ServerOptions{ServerCertificateContext: held, CertificateChainPolicy: f.trust()}
				}
				assert.False(t, connect(t, co, server()))
				assert.True(t, connect(t, co, server()))
			})
			t.Run("keys that were replaced", func(t *testing.T) {
				co, so := client(), f.serverOptions()
				old, young := [32]byte{1}, [32]byte{2}
				require.NoError(t, so.SetSessionTicketKeys([][32]byte{old}))
				connect(t, co, so)
				require.NoError(t, so.SetSessionTicketKeys([][32]byte{young, old}))
				assert.True(t, connect(t, co, so), "the old key still decrypts")
				require.NoError(t, so.SetSessionTicketKeys([][32]byte{young}))
				assert.True(t, connect(t, co, so), "the ticket was renewed under the new key")
				require.NoError(t, so.SetSessionTicketKeys([][32]byte{old}))
				assert.False(t, connect(t, co, so))
			})
			t.Run("keys given while a context's are in use", func(t *testing.T) {
				held, err := sslstream.NewCertificateContext(f.server, nil)
				require.NoError(t, err)
				co, so := client(), &sslstream.ServerOptions{ServerCertificateContext: held}
				connect(t, co, so)
				require.True(t, connect(t, co, so))
				require.NoError(t, so.SetSessionTicketKeys([][32]byte{{5}}))
				assert.False(t, connect(t, co, so))
				assert.True(t, connect(t, co, so))
				other := &sslstream.ServerOptions{ServerCertificateContext: held}
				require.NoError(t, other.SetSessionTicketKeys([][32]byte{{5}}))
				assert.True(t, connect(t, co, other))
			})
			t.Run("keys of a TLSConfig", func(t *testing.T) {
				keyed := func() *sslstream.ServerOptions {
					so := f.serverOptions()
					so.TLSConfig = &tls.Config{}
					so.TLSConfig.SetSessionTicketKeys([][32]byte{{7}})
					return so
				}
				co := client()
				connect(t, co, keyed())
				assert.True(t, connect(t, co, keyed()))
			})
			t.Run("many hosts over one value", func(t *testing.T) {
				co, so := client(), f.serverOptions()
				co.TargetHost, co.RemoteCertificateValidationCallback = "", accept
				for _, host := range []string{"a.example", "b.example"} {
					assert.False(t, connect(t, co, so, sslstream.WithTargetHost(host)))
					assert.True(t, connect(t, co, so, sslstream.WithTargetHost(host)))
				}
			})
		})
	}
}

func TestSetSessionTicketKeysMisuse(t *testing.T) {
	var so sslstream.ServerOptions
	assert.ErrorContains(t, so.SetSessionTicketKeys(nil), "at least one key")
	assert.ErrorContains(t, so.SetSessionTicketKeys([][32]byte{{1}, {}}), "all zeros")
}

// TestSessionTicketKeysWhileInUse replaces keys under handshakes, for the race detector.
func TestSessionTicketKeysWhileInUse(t *testing.T) {
	f := newFixture(t)
	co, so := f.clientOptions(), f.serverOptions()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 5 {
				assert.NoError(t, so.SetSessionTicketKeys([][32]byte{{byte(1 + i), byte(j)}}))
				so.Clone()
				client, server := newPair(t, co, so)
				exchange(t, client, server)
			}
		})
	}
	wg.Wait()
}

// TestFaultySessionCache has a cache that gives any session to anybody.
func TestFaultySessionCache(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			var cache oneSlot
			co, so := f.mutual()
			co.EnabledProtocols, co.SessionCache = v.protocol, &cache
			require.False(t, connect(t, co, so))
			require.True(t, connect(t, co, so))
			anonymous := f.clientOptions()
			anonymous.EnabledProtocols, anonymous.SessionCache = v.protocol, &cache
			so.RemoteCertificateValidationCallback = accept
			lenient := so.Clone()
			assert.False(t, connect(t, anonymous, lenient), "a session is not resumed under another identity")

			// The server is crypto/tls alone, which would resume under any name.
			careless := &tls.Config{Certificates: []tls.Certificate{f.server}}
			resumed := func(co *sslstream.ClientOptions) bool {
				a, b := testpki.TCP(t)
				go func() {
					c := tls.Server(b, careless)
					io.Copy(c, c)
				}()
				s := newStream(t, a)
				require.NoError(t, s.AuthenticateAsClient(testContext(t), co))
				_, err := s.Write([]byte("x"))
				require.NoError(t, err)
				_, err = s.Read(make([]byte, 1))
				require.NoError(t, err)
				return s.Security().Resumed
			}
			plain := f.clientOptions()
			plain.EnabledProtocols, plain.SessionCache = v.protocol, &cache
			require.False(t, resumed(plain))
			require.True(t, resumed(plain))
			elsewhere := plain.Clone()
			elsewhere.TargetHost, elsewhere.RemoteCertificateValidationCallback = "other.example", accept
			assert.False(t, resumed(elsewhere), "nor for another host")

			foreign := &tls.Config{ServerName: serverName, RootCAs: testpki.Pool(f.root), ClientSessionCache: &cache, MaxVersion: tls.VersionTLS12}
			a, b := testpki.TCP(t)
			server := newStream(t, b)
			go server.AuthenticateAsServer(testContext(t), f.serverOptions())
			require.NoError(t, tls.Client(a, foreign).Handshake())
			co, so = f.mutual()
			co.EnabledProtocols, co.SessionCache = v.protocol, &cache
			assert.False(t, connect(t, co, so), "nor one that crypto/tls filed without a note")
		})
	}
}

// TestChosenCertificatesAreNotFiled has a callback choose the certificate: the session must not even be kept.
func TestChosenCertificatesAreNotFiled(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		var cache oneSlot
		co, so := f.mutual()
		co.EnabledProtocols, co.SessionCache = v.protocol, &cache
		co.LocalCertificateSelectionCallback = func(context.Context, *sslstream.Stream, sslstream.CertificateRequest) (*tls.Certificate, error) {
			return &f.client, nil
		}
		require.False(t, connect(t, co, so))
		assert.Nil(t, cache.session)
	}
}

type oneSlot struct {
	mu      sync.Mutex
	session *tls.ClientSessionState
}

func (c *oneSlot) Get(string) (*tls.ClientSessionState, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session, c.session != nil
}

func (c *oneSlot) Put(_ string, s *tls.ClientSessionState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s != nil {
		c.session = s
	}
}

// TestStoredSessions keeps sessions as bytes, as a cache on disk would.
func TestStoredSessions(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			cache := &storing{kept: map[string][2][]byte{}}
			co, so := f.mutual()
			co.EnabledProtocols, co.SessionCache = v.protocol, cache
			require.False(t, connect(t, co, so))
			again := co.Clone()
			client, server := newPair(t, again, so)
			assert.True(t, client.Security().Resumed)
			assert.True(t, client.IsMutuallyAuthenticated())
			assert.True(t, server.IsMutuallyAuthenticated())
			assert.True(t, client.LocalCertificate().Equal(f.client.Leaf))
			exchange(t, client, server)
		})
	}
}

type storing struct {
	mu   sync.Mutex
	kept map[string][2][]byte
}

func (c *storing) Get(key string) (*tls.ClientSessionState, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept, ok := c.kept[key]
	if !ok {
		return nil, false
	}
	state, err := tls.ParseSessionState(kept[1])
	if err != nil {
		return nil, false
	}
	s, err := tls.NewResumptionState(kept[0], state)
	return s, err == nil
}

func (c *storing) Put(key string, s *tls.ClientSessionState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ticket, state, err := s.ResumptionState()
	if err != nil || state == nil {
		delete(c.kept, key)
		return
	}
	raw, err := state.Bytes()
	if err == nil {
		c.kept[key] = [2][]byte{ticket, raw}
	}
}

// TestTicketKeysRotate lets days pass.
func TestTicketKeysRotate(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		f := &fixture{root: testpki.Root(t, "Root", testpki.Valid(-time.Hour, 1000*time.Hour))}
		f.server = f.root.Issue(t, serverName, testpki.Valid(-time.Hour, 1000*time.Hour))
		co, so := f.clientOptions(), f.serverOptions()
		once := func() bool {
			client, server := pairOver(t, carriers[1], co, so)
			exchange(t, client, server)
			resumed := server.Security().Resumed
			go client.Close()
			server.Close()
			synctest.Wait()
			return resumed
		}
		assert.False(t, once())
		time.Sleep(30 * time.Hour)
		assert.True(t, once(), "the key was rotated, and the old one still decrypts")
		time.Sleep(8 * 24 * time.Hour)
		assert.False(t, once(), "tickets end after seven days")
		assert.True(t, once())
	})
}

// TestSessionOutlivesIntermediate has an intermediate expire while a session that was made with it is kept, and its peer
// renew it: a full handshake shows the new one, where the session could only show the old one and be refused. Its peer is
// crypto/tls, which would go on with the session.
func TestSessionOutlivesIntermediate(t *testing.T) {
	root := testpki.Root(t, "Root")
	old := root.Intermediate(t, "CA", testpki.Valid(-time.Hour, time.Hour))
	renewed := root.Intermediate(t, "CA", testpki.Key(old.Key))
	before := old.Issue(t, serverName)
	after := before
	after.Certificate = [][]byte{before.Certificate[0], renewed.Certificate.Raw}
	trust := &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(root)}

	for _, v := range versions {
		for _, weAreServer := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/server %v", v.name, weAreServer), func(t *testing.T) {
				var later time.Duration
				clock := &tls.Config{Time: func() time.Time { return time.Now().Add(later) }}
				co := &sslstream.ClientOptions{TargetHost: serverName, EnabledProtocols: v.protocol, CertificateChainPolicy: trust, TLSConfig: clock}
				so := &sslstream.ServerOptions{ServerCertificate: &before, ClientCertificateRequired: true, EnabledProtocols: v.protocol, CertificateChainPolicy: trust, TLSConfig: clock}
				shown := &before
				theirs := &tls.Config{
					ServerName: serverName, RootCAs: testpki.Pool(root), ClientSessionCache: tls.NewLRUClientSessionCache(1),
					GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown, nil },
					GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown, nil },
				}
				once := func() (resumed bool) {
					a, b := testpki.TCP(t)
					s := sslstream.New(a)
					defer s.Close()
					peer, authenticate := tls.Server(b, theirs), func() error { return s.AuthenticateAsClient(testContext(t), co) }
					if weAreServer {
						peer, authenticate = tls.Client(b, theirs), func() error { return s.AuthenticateAsServer(testContext(t), so) }
					}
					defer peer.Close()
					done := make(chan error, 1)
					go func() { // the ticket is read with the data
						_, err := peer.Write([]byte("x"))
						if err == nil {
							_, err = peer.Read(make([]byte, 1))
						}
						done <- err
					}()
					require.NoError(t, authenticate())
					_, err := s.Read(make([]byte, 1))
					require.NoError(t, err)
					_, err = s.Write([]byte("x"))
					require.NoError(t, err)
					require.NoError(t, <-done)
					return s.Security().Resumed
				}
				assert.False(t, once())
				assert.True(t, once())
				later, shown = 2*time.Hour, &after
				assert.False(t, once(), "the intermediate has expired")
				assert.True(t, once(), "the new one has not")
			})
		}
	}
}

// TestExpiredButAcceptedIsResumed has what was expired from the beginning and let in all the same.
func TestExpiredButAcceptedIsResumed(t *testing.T) {
	f := newFixture(t)
	expired := f.root.Intermediate(t, "Old CA", testpki.Expired())
	serverOwn, clientOwn := expired.Issue(t, serverName), expired.Issue(t, "client.example")
	co, so := f.mutual()
	co.ClientCertificates, so.ServerCertificate = []tls.Certificate{clientOwn}, &serverOwn
	co.RemoteCertificateValidationCallback, so.RemoteCertificateValidationCallback = accept, accept
	require.False(t, connect(t, co, so))
	assert.True(t, connect(t, co, so))
}

// TestVerificationTimeAndResumption has a chain expire by the clock, but not by the policy's time.
func TestVerificationTimeAndResumption(t *testing.T) {
	f := newFixture(t)
	short := f.root.Intermediate(t, "CA", testpki.Valid(-time.Hour, time.Hour)).Issue(t, serverName)
	later := time.Duration(0)
	co := f.clientOptions()
	co.CertificateChainPolicy.VerificationTime = time.Now()
	co.TLSConfig = &tls.Config{Time: func() time.Time { return time.Now().Add(later) }}
	so := &sslstream.ServerOptions{ServerCertificate: &short}
	require.False(t, connect(t, co, so))
	later = 2 * time.Hour
	assert.True(t, connect(t, co, so))
}

// TestRefusedSessionIsForgotten has a server that no longer trusts the client of the session, and refuses it only after
// the client's handshake.
func TestRefusedSessionIsForgotten(t *testing.T) {
	f := newFixture(t)
	co, so := f.mutual()
	refuse := false
	so.RemoteCertificateValidationCallback = func(_ context.Context, _ *sslstream.Stream, _ *x509.Certificate, _ *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
		if refuse {
			return errs | chainErrors, nil
		}
		return errs, nil
	}
	require.False(t, connect(t, co, so))
	require.True(t, connect(t, co, so))
	refuse = true
	client, server := newStreams(t)
	err, serverErr := authenticate(t, client, server, co, so)
	require.NoError(t, err)
	require.Error(t, serverErr)
	_, err = client.Read(make([]byte, 1))
	assert.Equal(t, tls.AlertError(42), authenticationError(t, err).RemoteAlert)
	refuse = false
	assert.False(t, connect(t, co, so))
}
