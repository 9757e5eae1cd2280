package sslstream_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

const (
	notAvailable = sslstream.RemoteCertificateNotAvailable
	nameMismatch = sslstream.RemoteCertificateNameMismatch
	chainErrors  = sslstream.RemoteCertificateChainErrors
)

// flagsOf lists each element's flags, leaf first.
func flagsOf(c *sslstream.Chain) []sslstream.ChainStatusFlags {
	var all []sslstream.ChainStatusFlags
	for _, e := range c.Elements {
		var flags sslstream.ChainStatusFlags
		for _, s := range e.Status {
			flags |= s.Flag
		}
		all = append(all, flags)
	}
	return all
}

func statusOf(c *sslstream.Chain) sslstream.ChainStatusFlags {
	var flags sslstream.ChainStatusFlags
	for _, s := range c.Status {
		flags |= s.Flag
	}
	return flags
}

func TestValidationCallbackVerdicts(t *testing.T) {
	f := newFixture(t)
	errPin := errors.New("not the pinned key")
	stranger := testpki.SelfSigned(t, serverName)
	for _, tc := range []struct {
		name     string
		cert     tls.Certificate
		host     string
		callback func(sslstream.PolicyErrors) (sslstream.PolicyErrors, error)
		found    sslstream.PolicyErrors // what the callback is told
		left     sslstream.PolicyErrors
		err      error
		refused  bool
	}{
		{"no callback, valid", f.server, serverName, nil, 0, 0, nil, false},
		{"no callback, name", f.server, "other.example", nil, nameMismatch, nameMismatch, nil, true},
		{"no callback, chain", stranger, serverName, nil, chainErrors, chainErrors, nil, true},
		{"default verdict, valid", f.server, serverName, func(e sslstream.PolicyErrors) (sslstream.PolicyErrors, error) { return e, nil }, 0, 0, nil, false},
		{"default verdict, name", f.server, "other.example", func(e sslstream.PolicyErrors) (sslstream.PolicyErrors, error) { return e, nil }, nameMismatch, nameMismatch, nil, true},
		{"forgives the name", f.server, "other.example", func(e sslstream.PolicyErrors) (sslstream.PolicyErrors, error) { return e &^ nameMismatch, nil }, nameMismatch, 0, nil, false},
		{"forgives the name only", stranger, "other.example", func(e sslstream.PolicyErrors) (sslstream.PolicyErrors, error) { return e &^ nameMismatch, nil }, nameMismatch | chainErrors, chainErrors, nil, true},
		{"objects", f.server, serverName, func(e sslstream.PolicyErrors) (sslstream.PolicyErrors, error) { return e, errPin }, 0, 0, errPin, true},
		{"objects besides", stranger, serverName, func(e sslstream.PolicyErrors) (sslstream.PolicyErrors, error) { return e, errPin }, chainErrors, chainErrors, errPin, true},
		{"objects although it forgives", stranger, serverName, func(sslstream.PolicyErrors) (sslstream.PolicyErrors, error) { return 0, errPin }, chainErrors, 0, errPin, true},
		{"finds more than there was", f.server, serverName, func(sslstream.PolicyErrors) (sslstream.PolicyErrors, error) { return chainErrors, nil }, 0, chainErrors, nil, true},
		{"accepts whatever comes", stranger, "other.example", func(sslstream.PolicyErrors) (sslstream.PolicyErrors, error) { return 0, nil }, nameMismatch | chainErrors, 0, nil, false},
	} {
		for _, v := range versions {
			t.Run(tc.name+"/"+v.name, func(t *testing.T) {
				co, so := f.clientOptions(), f.serverOptions()
				co.TargetHost, co.EnabledProtocols = tc.host, v.protocol
				so.ServerCertificate = &tc.cert
				calls := 0
				if tc.callback != nil {
					co.RemoteCertificateValidationCallback = func(_ context.Context, _ *sslstream.Stream, _ *x509.Certificate, _ *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
						calls++
						assert.Equal(t, tc.found, errs)
						return tc.callback(errs)
					}
				}
				client, server := newStreams(t)
				err, serverErr := authenticate(t, client, server, co, so)
				if tc.callback != nil {
					assert.Equal(t, 1, calls)
				}
				if !tc.refused {
					require.NoError(t, err)
					require.NoError(t, serverErr)
					assert.Equal(t, tc.found, client.PolicyErrors())
					assert.Equal(t, tc.found&chainErrors == 0, len(client.ConnectionState().VerifiedChains) > 0, "VerifiedChains is for valid chains")
					exchange(t, client, server)
					return
				}
				ae := authenticationError(t, err)
				assert.Equal(t, tc.left, ae.PolicyErrors)
				assert.False(t, ae.Transport)
				assert.Zero(t, ae.RemoteAlert)
				assert.False(t, ae.Server)
				require.NotNil(t, ae.Chain)
				if tc.err != nil {
					assert.Same(t, tc.err, ae.Err)
					assert.ErrorIs(t, err, tc.err)
					assert.Contains(t, err.Error(), tc.err.Error())
				}
				if tc.left != 0 {
					assert.Contains(t, err.Error(), tc.left.String())
				}
				server1 := authenticationError(t, serverErr)
				assert.Equal(t, tls.AlertError(42), server1.RemoteAlert, "bad_certificate")
				assert.Zero(t, server1.PolicyErrors)
				assert.Nil(t, client.RemoteCertificate(), "a refused peer's certificate is not that of a session")
			})
		}
	}
}

func TestValidationErrorReachesX509(t *testing.T) {
	f := newFixture(t)
	co, so := f.clientOptions(), f.serverOptions()
	co.TargetHost = "other.example"
	stranger := testpki.SelfSigned(t, serverName, testpki.Expired())
	so.ServerCertificate = &stranger
	client, server := newStreams(t)
	err, _ := authenticate(t, client, server, co, so)
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var verification *tls.CertificateVerificationError
	assert.ErrorAs(t, err, &unknown)
	assert.ErrorAs(t, err, &invalid)
	assert.Equal(t, x509.Expired, invalid.Reason)
	assert.ErrorAs(t, err, &name)
	assert.ErrorAs(t, err, &verification)
	assert.Len(t, verification.UnverifiedCertificates, 1)
	for _, word := range []string{"client", "other.example", "RemoteCertificateNameMismatch|RemoteCertificateChainErrors", "UntrustedRoot", "NotTimeValid", "expired on"} {
		assert.Contains(t, err.Error(), word)
	}
	assert.NotContains(t, err.Error(), "\n")
}

func TestValidationCallbackSeesTheSession(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			type key struct{}
			co, so := f.mutual()
			co.EnabledProtocols = v.protocol
			co.ApplicationProtocols, so.ApplicationProtocols = []string{"echo"}, []string{"echo"}
			look := func(wantGroup bool, name string, cert tls.Certificate) sslstream.RemoteCertificateValidationCallback {
				return func(ctx context.Context, s *sslstream.Stream, c *x509.Certificate, chain *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
					assert.Equal(t, "value", ctx.Value(key{}))
					assert.NoError(t, ctx.Err())
					assert.Equal(t, v.protocol, s.Protocol())
					assert.NotZero(t, s.NegotiatedCipherSuite())
					assert.NotZero(t, s.CipherStrength())
					assert.NotZero(t, s.HashStrength())
					assert.Equal(t, "echo", s.NegotiatedApplicationProtocol())
					assert.Equal(t, wantGroup, s.NegotiatedGroup() != 0)
					assert.Equal(t, serverName, s.TargetHostName())
					assert.True(t, s.RemoteCertificate().Equal(cert.Leaf))
					assert.Same(t, chain, s.RemoteChain())
					assert.Len(t, chain.Elements, 3)
					assert.Empty(t, chain.Status)
					assert.Nil(t, s.LocalCertificate())
					assert.False(t, s.IsAuthenticated())
					_, err := s.Read(make([]byte, 1))
					assert.ErrorIs(t, err, sslstream.ErrNotAuthenticated)
					assert.ErrorIs(t, s.AuthenticateAsClient(ctx, nil), sslstream.ErrAlreadyAuthenticated)
					return errs, nil
				}
			}
			co.RemoteCertificateValidationCallback = look(v.protocol == sslstream.ProtocolTLS13, "client", f.server)
			so.RemoteCertificateValidationCallback = look(true, "server", f.client)
			client, server := newStreams(t)
			ctx := context.WithValue(testContext(t), key{}, "value")
			done := make(chan error, 1)
			go func() { done <- server.AuthenticateAsServer(ctx, so) }()
			require.NoError(t, client.AuthenticateAsClient(ctx, co))
			require.NoError(t, <-done)
			exchange(t, client, server)
		})
	}
}

func TestValidationRunsOnResumedSessions(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			co, so := f.mutual()
			co.EnabledProtocols = v.protocol
			calls := map[bool]int{}
			count := func(_ context.Context, s *sslstream.Stream, c *x509.Certificate, chain *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
				assert.NotNil(t, c)
				assert.Len(t, chain.Elements, 3)
				assert.Zero(t, errs)
				return errs, nil
			}
			co.RemoteCertificateValidationCallback = func(ctx context.Context, s *sslstream.Stream, c *x509.Certificate, chain *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
				calls[false]++
				return count(ctx, s, c, chain, errs)
			}
			so.RemoteCertificateValidationCallback = func(ctx context.Context, s *sslstream.Stream, c *x509.Certificate, chain *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
				calls[true]++
				return count(ctx, s, c, chain, errs)
			}
			client, server := resume(t, co, so)
			assert.True(t, client.Security().Resumed)
			assert.True(t, server.Security().Resumed)
			assert.Equal(t, map[bool]int{false: 2, true: 2}, calls)
			assert.NotEmpty(t, client.ConnectionState().VerifiedChains)
			assert.NotEmpty(t, server.ConnectionState().VerifiedChains)
		})
	}
}

func TestServerWithoutClientCertificate(t *testing.T) {
	f := newFixture(t)
	for _, tc := range []struct {
		name     string
		required bool
		callback bool
		forgive  bool
		want     sslstream.PolicyErrors
		refused  bool
	}{
		{"not required", false, false, false, 0, false},
		{"not required, callback", false, true, false, 0, false},
		{"required", true, false, false, notAvailable, true},
		{"required, callback", true, true, false, notAvailable, true},
		{"required, callback forgives", true, true, true, notAvailable, false},
	} {
		for _, v := range versions {
			t.Run(tc.name+"/"+v.name, func(t *testing.T) {
				co, so := f.clientOptions(), f.serverOptions()
				co.EnabledProtocols = v.protocol
				so.ClientCertificateRequired = tc.required
				calls := 0
				if tc.callback {
					so.RemoteCertificateValidationCallback = func(_ context.Context, s *sslstream.Stream, cert *x509.Certificate, chain *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
						calls++
						assert.Nil(t, cert)
						assert.Nil(t, chain)
						assert.Equal(t, tc.want, errs)
						assert.Nil(t, s.RemoteChain())
						if tc.forgive {
							return 0, nil
						}
						return errs, nil
					}
				}
				client, server := newStreams(t)
				clientErr, err := authenticate(t, client, server, co, so)
				if tc.callback {
					assert.Equal(t, 1, calls)
				}
				if !tc.refused {
					require.NoError(t, clientErr)
					require.NoError(t, err)
					assert.Nil(t, server.RemoteCertificate())
					assert.False(t, server.IsMutuallyAuthenticated())
					assert.Equal(t, tc.want, server.PolicyErrors())
					exchange(t, client, server)
					return
				}
				ae := authenticationError(t, err)
				assert.True(t, ae.Server)
				assert.Equal(t, notAvailable, ae.PolicyErrors)
				assert.Nil(t, ae.Chain)
				assert.Contains(t, err.Error(), "RemoteCertificateNotAvailable")
				// The client learns it in the handshake, or in TLS 1.3 afterwards.
				if v.protocol == sslstream.ProtocolTLS13 {
					require.NoError(t, clientErr)
					_, clientErr = client.Read(make([]byte, 1))
				}
				refused := authenticationError(t, clientErr)
				assert.Equal(t, tls.AlertError(42), refused.RemoteAlert)
				assert.Contains(t, refused.Error(), "bad certificate")
			})
		}
	}
}

func TestServerValidatesClientCertificate(t *testing.T) {
	f := newFixture(t)
	for _, tc := range []struct {
		name string
		cert tls.Certificate
		want sslstream.ChainStatusFlags
	}{
		{"valid", f.client, 0},
		{"a server's", f.server, sslstream.StatusNotValidForUsage},
		{"a stranger's", testpki.SelfSigned(t, "client.example"), sslstream.StatusUntrustedRoot},
		{"expired", f.intermediate.Issue(t, "client.example", testpki.Expired()), sslstream.StatusNotTimeValid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			co, so := f.mutual()
			co.LocalCertificateSelectionCallback = func(context.Context, *sslstream.Stream, sslstream.CertificateRequest) (*tls.Certificate, error) {
				return &tc.cert, nil
			}
			client, server := newStreams(t)
			_, err := authenticate(t, client, server, co, so)
			if tc.want == 0 {
				require.NoError(t, err)
				assert.True(t, server.IsMutuallyAuthenticated())
				return
			}
			ae := authenticationError(t, err)
			assert.Equal(t, chainErrors, ae.PolicyErrors)
			assert.Equal(t, tc.want, statusOf(ae.Chain))
		})
	}
}

func TestPolicyMisuse(t *testing.T) {
	for _, tc := range []struct {
		name   string
		mode   sslstream.RevocationMode
		policy sslstream.ChainPolicy
		says   string
	}{
		{"unknown mode", 7, sslstream.ChainPolicy{}, "unknown revocation mode 7"},
		{"unknown flag", 0, sslstream.ChainPolicy{RevocationFlag: 9}, "RevocationFlag 9"},
		{"unknown verification flags", 0, sslstream.ChainPolicy{VerificationFlags: 1 << 20}, "0x100000"},
		{"negative timeout", 0, sslstream.ChainPolicy{URLRetrievalTimeout: -1}, "URLRetrievalTimeout"},
		{"nil in the store", 0, sslstream.ChainPolicy{ExtraStore: []*x509.Certificate{nil}}, "ExtraStore"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client, _ := newStreams(t)
			err := client.AuthenticateAsClient(t.Context(), &sslstream.ClientOptions{
				TargetHost: serverName, CertificateRevocationCheckMode: tc.mode, CertificateChainPolicy: &tc.policy,
			})
			require.Error(t, err)
			assert.Contains(t, err.Error(), tc.says)
			var ae *sslstream.AuthenticationError
			assert.False(t, errors.As(err, &ae), "a configuration error is no AuthenticationError")
			if tc.mode == 0 {
				_, err = tc.policy.Build(t.Context(), &x509.Certificate{})
				assert.Error(t, err)
			}
		})
	}
}

// TestRefusalNamesEveryCertificate has the same thing wrong with two certificates.
func TestRefusalNamesEveryCertificate(t *testing.T) {
	f := newFixture(t)
	expired := f.root.Intermediate(t, "Old CA", testpki.Expired())
	cert := expired.Issue(t, serverName, testpki.Expired())
	client, server := newStreams(t)
	err, _ := authenticate(t, client, server, f.clientOptions(), &sslstream.ServerOptions{ServerCertificate: &cert})
	assert.Equal(t, chainErrors, authenticationError(t, err).PolicyErrors)
	for _, c := range []*x509.Certificate{cert.Leaf, expired.Certificate} {
		assert.ErrorContains(t, err, c.Subject.String()+": NotTimeValid (expired on "+c.NotAfter.Format(time.RFC3339)+")")
	}
}

func TestBuild(t *testing.T) {
	f := newFixture(t)
	policy := f.trust()
	t.Run("valid", func(t *testing.T) {
		chain, err := policy.Build(t.Context(), f.server.Leaf, f.intermediate.Certificate)
		require.NoError(t, err)
		assert.Empty(t, chain.Status)
		assert.Len(t, chain.Elements, 3)
	})
	t.Run("asks for no usage", func(t *testing.T) {
		for _, leaf := range []*x509.Certificate{f.server.Leaf, f.client.Leaf} {
			chain, err := policy.Build(t.Context(), leaf, f.intermediate.Certificate)
			require.NoError(t, err)
			assert.Empty(t, chain.Status)
		}
	})
	t.Run("nil policy", func(t *testing.T) {
		var none *sslstream.ChainPolicy
		chain, err := none.Build(t.Context(), f.server.Leaf, f.intermediate.Certificate)
		require.NoError(t, err)
		assert.True(t, chain.Has(sslstream.StatusPartialChain))
	})
	t.Run("no certificate", func(t *testing.T) {
		_, err := policy.Build(t.Context(), nil)
		assert.Error(t, err)
	})
	t.Run("nil among those that came with it", func(t *testing.T) {
		_, err := policy.Build(t.Context(), f.server.Leaf, f.intermediate.Certificate, nil)
		assert.ErrorContains(t, err, "nil certificate")
	})
	t.Run("nil context", func(t *testing.T) {
		var none context.Context
		chain, err := policy.Build(none, f.server.Leaf, f.intermediate.Certificate)
		require.NoError(t, err)
		assert.Empty(t, chain.Status)
	})
	t.Run("ended context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := policy.Build(ctx, f.server.Leaf)
		assert.ErrorIs(t, err, context.Canceled)
	})
	t.Run("at another time", func(t *testing.T) {
		later := f.trust()
		later.VerificationTime = time.Now().Add(48 * time.Hour)
		chain, err := later.Build(t.Context(), f.server.Leaf, f.intermediate.Certificate)
		require.NoError(t, err)
		assert.Equal(t, []sslstream.ChainStatusFlags{sslstream.StatusNotTimeValid, sslstream.StatusNotTimeValid, sslstream.StatusNotTimeValid}, flagsOf(chain))
	})
}

func TestRevocationModeText(t *testing.T) {
	for mode, text := range map[sslstream.RevocationMode]string{sslstream.RevocationNoCheck: "NoCheck", sslstream.RevocationOnline: "Online", sslstream.RevocationOffline: "Offline"} {
		assert.Equal(t, text, mode.String())
		b, err := mode.MarshalText()
		require.NoError(t, err)
		var back sslstream.RevocationMode
		require.NoError(t, back.UnmarshalText(b))
		assert.Equal(t, mode, back)
	}
	var mode sslstream.RevocationMode = 1
	require.NoError(t, mode.UnmarshalText([]byte(" offline ")))
	assert.Equal(t, sslstream.RevocationOffline, mode)
	assert.Error(t, mode.UnmarshalText([]byte("sometimes")))
	assert.Equal(t, sslstream.RevocationOffline, mode, "an error leaves it as it was")
	_, err := sslstream.RevocationMode(9).MarshalText()
	assert.Error(t, err)
	assert.Equal(t, "9", sslstream.RevocationMode(9).String())
}

func TestFlagNames(t *testing.T) {
	assert.Equal(t, "None", sslstream.PolicyErrors(0).String())
	assert.Equal(t, "RemoteCertificateNameMismatch|RemoteCertificateChainErrors", (nameMismatch | chainErrors).String())
	assert.Equal(t, "RemoteCertificateNotAvailable|0x10", (notAvailable | 16).String())
	assert.Equal(t, "NotTimeValid|UntrustedRoot", (sslstream.StatusUntrustedRoot | sslstream.StatusNotTimeValid).String())
	assert.Equal(t, "None", sslstream.ChainStatusFlags(0).String())
	var none *sslstream.Chain
	assert.False(t, none.Has(^sslstream.ChainStatusFlags(0)))
	assert.Empty(t, none.String())
}

// TestConstraintsOfRootsAreAsked has a pool whose constraint changes its mind: every full handshake asks it.
func TestConstraintsOfRootsAreAsked(t *testing.T) {
	f := newFixture(t)
	var refuse error
	pool := x509.NewCertPool()
	pool.AddCertWithConstraint(f.root.Certificate, func([]*x509.Certificate) error { return refuse })
	co := f.clientOptions()
	co.CertificateChainPolicy = &sslstream.ChainPolicy{CustomTrustStore: pool}
	co.DisableTLSResume = true
	for range 2 {
		newPair(t, co, f.serverOptions())
	}
	refuse = errors.New("distrusted since")
	client, server := newStreams(t)
	err, _ := authenticate(t, client, server, co, f.serverOptions())
	assert.Equal(t, sslstream.RemoteCertificateChainErrors, authenticationError(t, err).PolicyErrors)
}
