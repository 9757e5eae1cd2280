//lint:file-ignore SA1019 a user's config may still use what is deprecated

package sslstream_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

func TestClientCertificateSources(t *testing.T) {
	f := newFixture(t)
	other := testpki.Root(t, "Other Root")
	foreign := other.Issue(t, "foreign.example")
	rsa := f.intermediate.Issue(t, "rsa.example", testpki.RSA(2048))
	held, err := sslstream.NewCertificateContext(f.client, nil)
	require.NoError(t, err)
	pick := func(c *tls.Certificate) sslstream.LocalCertificateSelectionCallback {
		return func(context.Context, *sslstream.Stream, sslstream.CertificateRequest) (*tls.Certificate, error) {
			return c, nil
		}
	}
	for _, tc := range []struct {
		name   string
		change func(*sslstream.ClientOptions)
		trust  bool // the server names its trust store
		want   *x509.Certificate
	}{
		{"none", func(o *sslstream.ClientOptions) { o.ClientCertificates = nil }, false, nil},
		{"list", func(o *sslstream.ClientOptions) { o.ClientCertificates = []tls.Certificate{rsa, f.client} }, false, rsa.Leaf},
		{"list, by acceptable issuer", func(o *sslstream.ClientOptions) {
			o.ClientCertificates = []tls.Certificate{foreign, f.client}
		}, true, f.client.Leaf},
		{"list, none acceptable", func(o *sslstream.ClientOptions) { o.ClientCertificates = []tls.Certificate{foreign} }, true, nil},
		{"TLSConfig's list", func(o *sslstream.ClientOptions) {
			o.ClientCertificates, o.TLSConfig = nil, &tls.Config{Certificates: []tls.Certificate{rsa}}
		}, false, rsa.Leaf},
		{"TLSConfig's callback", func(o *sslstream.ClientOptions) {
			o.ClientCertificates = nil
			o.TLSConfig = &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &rsa, nil }}
		}, false, rsa.Leaf},
		{"TLSConfig's callback, none", func(o *sslstream.ClientOptions) {
			o.ClientCertificates = nil
			o.TLSConfig = &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &tls.Certificate{}, nil
			}}
		}, false, nil},
		{"callback wins over list", func(o *sslstream.ClientOptions) { o.LocalCertificateSelectionCallback = pick(&rsa) }, false, rsa.Leaf},
		{"callback's choice is not filtered", func(o *sslstream.ClientOptions) { o.LocalCertificateSelectionCallback = pick(&foreign) }, true, foreign.Leaf},
		{"callback sends none", func(o *sslstream.ClientOptions) { o.LocalCertificateSelectionCallback = pick(nil) }, false, nil},
		{"context wins over callback", func(o *sslstream.ClientOptions) {
			o.ClientCertificateContext, o.LocalCertificateSelectionCallback = held, pick(&rsa)
		}, false, f.client.Leaf},
	} {
		for _, v := range versions {
			t.Run(tc.name+"/"+v.name, func(t *testing.T) {
				co, so := f.mutual()
				co.EnabledProtocols = v.protocol
				so.SendTrustInHandshake = tc.trust
				so.RemoteCertificateValidationCallback = accept
				if tc.trust { // issued by it directly
					so.CertificateChainPolicy = &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(f.intermediate)}
				}
				tc.change(co)
				client, server := newPair(t, co, so)
				exchange(t, client, server)
				if tc.want == nil {
					assert.Nil(t, client.LocalCertificate())
					assert.Nil(t, server.RemoteCertificate())
				} else {
					require.NotNil(t, client.LocalCertificate())
					assert.True(t, client.LocalCertificate().Equal(tc.want))
					assert.True(t, server.RemoteCertificate().Equal(tc.want))
				}
				assert.Equal(t, tc.want != nil, client.IsMutuallyAuthenticated())
				assert.Equal(t, tc.want != nil, server.IsMutuallyAuthenticated())
			})
		}
	}
}

func TestClientCertificateThatIsNotAskedFor(t *testing.T) {
	f := newFixture(t)
	co, _ := f.mutual()
	co.LocalCertificateSelectionCallback = func(context.Context, *sslstream.Stream, sslstream.CertificateRequest) (*tls.Certificate, error) {
		t.Error("asked")
		return nil, nil
	}
	client, server := newPair(t, co, f.serverOptions())
	exchange(t, client, server)
	assert.Nil(t, client.LocalCertificate())
	assert.False(t, client.IsMutuallyAuthenticated())
	assert.False(t, server.IsMutuallyAuthenticated())
}

func TestLocalCertificateSelectionCallbackArguments(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			type key struct{}
			co, so := f.mutual()
			co.EnabledProtocols = v.protocol
			leafless := f.client
			leafless.Leaf = nil
			co.ClientCertificates = []tls.Certificate{leafless}
			so.SendTrustInHandshake = true
			calls := 0
			choose := func(ctx context.Context, s *sslstream.Stream, req sslstream.CertificateRequest) (*tls.Certificate, error) {
				calls++
				assert.Equal(t, "value", ctx.Value(key{}))
				assert.Equal(t, serverName, req.TargetHost)
				require.Len(t, req.Local, 1)
				assert.NotNil(t, req.Local[0].Leaf)
				assert.True(t, req.Remote.Equal(f.server.Leaf))
				assert.Equal(t, []string{f.root.Certificate.Subject.String()}, req.AcceptableIssuers)
				assert.Equal(t, f.intermediate.Certificate.Issuer.String(), req.AcceptableIssuers[0])
				assert.NotEmpty(t, req.Info.SignatureSchemes)
				assert.False(t, s.IsServer())
				return &req.Local[0], nil
			}
			a, b := testpki.TCP(t)
			client := newStream(t, a, sslstream.WithLocalCertificateSelectionCallback(choose))
			server := newStream(t, b)
			ctx := context.WithValue(testContext(t), key{}, "value")
			done := make(chan error, 1)
			go func() { done <- server.AuthenticateAsServer(ctx, so) }()
			require.NoError(t, client.AuthenticateAsClient(ctx, co))
			require.NoError(t, <-done)
			assert.Equal(t, 1, calls)
			assert.True(t, client.LocalCertificate().Equal(f.client.Leaf))
		})
	}
}

func TestLocalCertificateSelectionCallbackFails(t *testing.T) {
	f := newFixture(t)
	broken := errors.New("no smart card")
	noKey := tls.Certificate{Certificate: f.client.Certificate}
	for name, tc := range map[string]struct {
		cert *tls.Certificate
		err  error
		says string
	}{
		"error":             {nil, broken, "no smart card"},
		"without a key":     {&noKey, nil, "has no private key"},
		"key of another":    {&tls.Certificate{Certificate: f.client.Certificate, PrivateKey: f.server.PrivateKey}, nil, "does not belong"},
		"key of no use":     {&tls.Certificate{Certificate: f.client.Certificate, PrivateKey: "secret"}, nil, "a string"},
		"not a certificate": {&tls.Certificate{Certificate: [][]byte{{1, 2}}, PrivateKey: f.client.PrivateKey}, nil, "does not parse"},
	} {
		for _, v := range versions {
			t.Run(name+"/"+v.name, func(t *testing.T) {
				co, so := f.mutual()
				co.EnabledProtocols = v.protocol
				co.LocalCertificateSelectionCallback = func(context.Context, *sslstream.Stream, sslstream.CertificateRequest) (*tls.Certificate, error) {
					return tc.cert, tc.err
				}
				client, server := newStreams(t)
				err, serverErr := authenticate(t, client, server, co, so)
				ae := authenticationError(t, err)
				assert.False(t, ae.Transport)
				assert.ErrorContains(t, err, tc.says)
				if tc.err != nil {
					assert.ErrorIs(t, err, tc.err)
				}
				assert.Error(t, serverErr)
			})
		}
	}
}

func TestServerCertificateSources(t *testing.T) {
	f := newFixture(t)
	one := f.intermediate.Issue(t, "one.example", testpki.DNS("one.example"))
	wild := f.intermediate.Issue(t, "wild.example", testpki.DNS("*.wild.example"))
	held, err := sslstream.NewCertificateContext(one, nil)
	require.NoError(t, err)
	bySNI := func(_ context.Context, s *sslstream.Stream, hello sslstream.ClientHelloInfo) (*tls.Certificate, error) {
		if hello.ServerName == "one.example" {
			return &one, nil
		}
		return &f.server, nil
	}
	for _, tc := range []struct {
		name string
		opts *sslstream.ServerOptions
		host string
		want *x509.Certificate
	}{
		{"one", &sslstream.ServerOptions{ServerCertificate: &f.server}, serverName, f.server.Leaf},
		{"context", &sslstream.ServerOptions{ServerCertificateContext: held}, "one.example", one.Leaf},
		{"context wins", &sslstream.ServerOptions{ServerCertificateContext: held, ServerCertificate: &f.server}, "one.example", one.Leaf},
		{"by server name", &sslstream.ServerOptions{ServerCertificateSelectionCallback: bySNI}, "one.example", one.Leaf},
		{"by another", &sslstream.ServerOptions{ServerCertificateSelectionCallback: bySNI}, serverName, f.server.Leaf},
		{"TLSConfig's, first that fits", &sslstream.ServerOptions{TLSConfig: &tls.Config{Certificates: []tls.Certificate{f.server, one}}}, "one.example", one.Leaf},
		{"TLSConfig's, by a wildcard", &sslstream.ServerOptions{TLSConfig: &tls.Config{Certificates: []tls.Certificate{f.server, wild}}}, "a.wild.example", wild.Leaf},
		{"TLSConfig's, by a name in the map", &sslstream.ServerOptions{TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{f.server}, NameToCertificate: map[string]*tls.Certificate{"one.example": &one}}}, "one.example", one.Leaf},
		{"TLSConfig's, by a wildcard in the map", &sslstream.ServerOptions{TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{f.server}, NameToCertificate: map[string]*tls.Certificate{"*.wild.example": &wild}}}, "a.wild.example", wild.Leaf},
		{"TLSConfig's callback", &sslstream.ServerOptions{TLSConfig: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &one, nil }}}, "one.example", one.Leaf},
		{"TLSConfig's callback, then the list", &sslstream.ServerOptions{TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{f.server}, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}}, serverName, f.server.Leaf},
	} {
		for _, v := range versions {
			t.Run(tc.name+"/"+v.name, func(t *testing.T) {
				co := f.clientOptions()
				co.TargetHost, co.EnabledProtocols = tc.host, v.protocol
				for attempt := range 2 {
					client, server := newPair(t, co, tc.opts)
					exchange(t, client, server)
					assert.Equal(t, attempt == 1, server.Security().Resumed)
					assert.True(t, client.RemoteCertificate().Equal(tc.want))
					assert.True(t, server.LocalCertificate().Equal(tc.want), "on a resumed session too")
				}
			})
		}
	}
}

func TestServerCertificateThatTheClientRefuses(t *testing.T) {
	f := newFixture(t)
	so := &sslstream.ServerOptions{TLSConfig: &tls.Config{Certificates: []tls.Certificate{f.server}}}
	co := f.clientOptions()
	co.TargetHost = "other.example"
	client, server := newStreams(t)
	err, _ := authenticate(t, client, server, co, so)
	assert.Equal(t, nameMismatch, authenticationError(t, err).PolicyErrors, "the client says what is wrong, not the server")
}

func TestServerCertificateSelectionCallback(t *testing.T) {
	f := newFixture(t)
	broken := errors.New("no such certificate")
	for name, tc := range map[string]struct {
		cert *tls.Certificate
		err  error
		says string
	}{
		"error":         {nil, broken, "no such certificate"},
		"none":          {nil, nil, `no certificate was selected for the server name "server.example"`},
		"without a key": {&tls.Certificate{Certificate: f.server.Certificate}, nil, "has no private key"},
	} {
		for _, v := range versions {
			t.Run(name+"/"+v.name, func(t *testing.T) {
				calls := 0
				so := &sslstream.ServerOptions{ServerCertificateSelectionCallback: func(ctx context.Context, s *sslstream.Stream, hello sslstream.ClientHelloInfo) (*tls.Certificate, error) {
					calls++
					assert.Equal(t, serverName, hello.ServerName)
					assert.Equal(t, serverName, s.TargetHostName())
					assert.True(t, s.IsServer())
					return tc.cert, tc.err
				}}
				co := f.clientOptions()
				co.EnabledProtocols = v.protocol
				client, server := newStreams(t)
				err, serverErr := authenticate(t, client, server, co, so)
				assert.Equal(t, tls.AlertError(80), authenticationError(t, err).RemoteAlert)
				assert.ErrorContains(t, serverErr, tc.says)
				if tc.err != nil {
					assert.ErrorIs(t, serverErr, tc.err)
				}
				assert.Equal(t, 1, calls, "once in a handshake")
			})
		}
	}
}

func TestCertificateContext(t *testing.T) {
	root := testpki.Root(t, "Root")
	ca := root.Intermediate(t, "CA")
	sub := ca.Intermediate(t, "Sub")
	namesake := root.Intermediate(t, "Sub")
	full := sub.Issue(t, serverName)
	bare := full
	bare.Certificate = full.Certificate[:1]
	bare.Leaf = nil

	for _, tc := range []struct {
		name       string
		target     tls.Certificate
		additional []*x509.Certificate
		want       []*x509.Certificate
	}{
		{"as it comes", full, nil, certs(sub, ca)},
		{"nothing comes with it", bare, nil, nil},
		{"completed in any order", bare, certs(root, ca, namesake, sub), certs(sub, ca)},
		{"as far as they link up", bare, certs(ca), nil},
		{"the rest of what comes", tls.Certificate{Certificate: full.Certificate[:2], PrivateKey: full.PrivateKey}, certs(ca), certs(sub, ca)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := sslstream.NewCertificateContext(tc.target, &sslstream.CertificateContextOptions{AdditionalCertificates: tc.additional, Offline: true})
			require.NoError(t, err)
			assert.True(t, c.TargetCertificate().Equal(full.Leaf))
			got := c.IntermediateCertificates()
			require.Len(t, got, len(tc.want))
			for i := range got {
				assert.True(t, got[i].Equal(tc.want[i]))
			}
			co := &sslstream.ClientOptions{TargetHost: serverName, CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(root)}}
			client, server := newStreams(t)
			err, _ = authenticate(t, client, server, co, &sslstream.ServerOptions{ServerCertificateContext: c})
			if len(tc.want) == 2 {
				require.NoError(t, err)
				assert.Len(t, client.ConnectionState().PeerCertificates, 3, "without the root")
			} else {
				assert.True(t, authenticationError(t, err).Chain.Has(sslstream.StatusPartialChain))
			}
		})
	}
	t.Run("misuse", func(t *testing.T) {
		_, err := sslstream.NewCertificateContext(tls.Certificate{}, nil)
		assert.ErrorContains(t, err, "no certificate")
		_, err = sslstream.NewCertificateContext(tls.Certificate{Certificate: full.Certificate}, nil)
		assert.ErrorContains(t, err, "private key")
		_, err = sslstream.NewCertificateContext(full, &sslstream.CertificateContextOptions{AdditionalCertificates: []*x509.Certificate{nil}})
		assert.ErrorContains(t, err, "nil certificate")
		broken := full
		broken.Certificate = [][]byte{full.Certificate[0], {1, 2, 3}}
		_, err = sslstream.NewCertificateContext(broken, nil)
		assert.ErrorContains(t, err, "does not parse")
	})
}

// TestLeafOfAnother has certificates whose Leaf was forgotten when they were renewed: what counts is what is sent.
func TestLeafOfAnother(t *testing.T) {
	f := newFixture(t)
	stale := func(old tls.Certificate, usage x509.ExtKeyUsage) tls.Certificate {
		renewed := f.intermediate.Issue(t, old.Leaf.DNSNames[0], testpki.Key(old.PrivateKey.(crypto.Signer)), testpki.EKU(usage))
		renewed.Leaf = old.Leaf
		return renewed
	}
	clientOwn, serverOwn := stale(f.client, x509.ExtKeyUsageClientAuth), stale(f.server, x509.ExtKeyUsageServerAuth)
	co, so := f.mutual()
	co.ClientCertificates, so.ServerCertificate = []tls.Certificate{clientOwn}, &serverOwn
	client, server := newPair(t, co, so)
	assert.Equal(t, serverOwn.Certificate[0], server.LocalCertificate().Raw)
	assert.Equal(t, clientOwn.Certificate[0], client.LocalCertificate().Raw)
	assert.Equal(t, client.RemoteCertificate().Raw, server.LocalCertificate().Raw)
	assert.Equal(t, server.RemoteCertificate().Raw, client.LocalCertificate().Raw)
	assert.Same(t, f.server.Leaf, serverOwn.Leaf, "the caller's is not modified")
}

// TestSigner uses a key that can do nothing but sign.
func TestSigner(t *testing.T) {
	f := newFixture(t)
	for _, cert := range []tls.Certificate{f.server, f.intermediate.Issue(t, serverName, testpki.RSA(2048))} {
		opaque := cert
		opaque.PrivateKey = struct{ crypto.Signer }{cert.PrivateKey.(crypto.Signer)}
		for _, v := range versions {
			co, so := f.mutual()
			co.EnabledProtocols = v.protocol
			so.ServerCertificate, co.ClientCertificates = &opaque, []tls.Certificate{opaque}
			so.RemoteCertificateValidationCallback = accept
			client, server := newPair(t, co, so)
			exchange(t, client, server)
		}
	}
}
