package sslstream_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

const (
	unique   = sslstream.ChannelBindingUnique
	endpoint = sslstream.ChannelBindingEndpoint
	exporter = sslstream.ChannelBindingExporter
)

func TestChannelBindingKinds(t *testing.T) {
	assert.Equal(t, []int{25, 26, 27}, []int{int(unique), int(endpoint), int(exporter)})
	assert.Equal(t, "tls-unique", unique.String())
	assert.Equal(t, "tls-server-end-point", endpoint.String())
	assert.Equal(t, "tls-exporter", exporter.String())
	assert.Equal(t, "3", sslstream.ChannelBindingKind(3).String())
}

// bindings returns the bindings of both sides, which must be the same.
func bindings(t *testing.T, client, server *sslstream.Stream) map[sslstream.ChannelBindingKind][]byte {
	t.Helper()
	all := map[sslstream.ChannelBindingKind][]byte{}
	for _, kind := range []sslstream.ChannelBindingKind{unique, endpoint, exporter} {
		ours, err := client.ChannelBinding(kind)
		theirs, serverErr := server.ChannelBinding(kind)
		if kind == unique && client.Protocol() == tls13 {
			assert.ErrorIs(t, err, errors.ErrUnsupported)
			assert.ErrorIs(t, serverErr, errors.ErrUnsupported)
			assert.ErrorContains(t, err, "ChannelBindingExporter", "it says what to use")
			continue
		}
		require.NoError(t, err, "%v", kind)
		require.NoError(t, serverErr, "%v", kind)
		assert.NotEmpty(t, ours)
		assert.Equal(t, ours, theirs, "%v on both sides", kind)
		all[kind] = ours
	}
	return all
}

func TestChannelBinding(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		for _, mutual := range []bool{false, true} {
			t.Run(v.name+map[bool]string{true: "/mutual"}[mutual], func(t *testing.T) {
				co, so := f.clientOptions(), f.serverOptions()
				if mutual {
					co, so = f.mutual()
				}
				co.EnabledProtocols = v.protocol
				client, server := newPair(t, co, so)
				full := bindings(t, client, server)
				hash := sha256.Sum256(f.server.Leaf.Raw)
				assert.Equal(t, hash[:], full[endpoint])
				assert.Len(t, full[exporter], 32)
				if v.protocol == tls12 {
					assert.Len(t, full[unique], 12)
				}

				exchange(t, client, server)
				changed, err := client.ChannelBinding(endpoint)
				require.NoError(t, err)
				changed[0]++
				client.Close()
				server.Close()
				assert.Equal(t, full, bindings(t, client, server), "after Close, and whatever a caller did to what it got")

				client, server = newPair(t, co, so)
				exchange(t, client, server)
				require.True(t, client.Security().Resumed && server.Security().Resumed)
				resumed := bindings(t, client, server)
				assert.Equal(t, full[endpoint], resumed[endpoint])
				assert.NotEqual(t, full[exporter], resumed[exporter])
				if v.protocol == tls12 {
					assert.NotEqual(t, full[unique], resumed[unique])
				}
			})
		}
	}
}

// TestChannelBindingsWithoutUs has crypto/tls alone on the other side.
func TestChannelBindingsWithoutUs(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			inner, peer := testpki.TCP(t)
			server := tls.Server(peer, &tls.Config{Certificates: []tls.Certificate{f.server}})
			done := make(chan error, 1)
			go func() { done <- server.Handshake() }()
			client := sslstream.New(inner)
			defer client.Close()
			co := f.clientOptions()
			co.EnabledProtocols = v.protocol
			require.NoError(t, client.AuthenticateAsClient(testContext(t), co))
			require.NoError(t, <-done)
			state := server.ConnectionState()
			want, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32)
			require.NoError(t, err)
			got, err := client.ChannelBinding(exporter)
			require.NoError(t, err)
			assert.Equal(t, want, got)
			if v.protocol == tls12 {
				without, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
				require.NoError(t, err)
				assert.NotEqual(t, without, got, "an empty context is not none")
				got, err = client.ChannelBinding(unique)
				require.NoError(t, err)
				assert.Equal(t, state.TLSUnique, got)
			}
		})
	}
}

// withAlgorithm signs by the algorithm given.
func withAlgorithm(a x509.SignatureAlgorithm) testpki.Option {
	return testpki.Template(func(c *x509.Certificate) { c.SignatureAlgorithm = a })
}

// claim makes a certificate name another algorithm than the one that it was signed with.
func claim(t *testing.T, c tls.Certificate, oid, other []byte) tls.Certificate {
	t.Helper()
	require.Equal(t, 2, bytes.Count(c.Certificate[0], oid))
	der := bytes.ReplaceAll(c.Certificate[0], oid, other)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: c.PrivateKey, Leaf: leaf}
}

// TestEndpointBinding holds the hash against RFC 5929, Section 4.1.
func TestEndpointBinding(t *testing.T) {
	rsa := testpki.Root(t, "RSA", rsaKey)
	p256 := testpki.Root(t, "P-256")
	p384 := testpki.Root(t, "P-384", testpki.ECDSA(t, elliptic.P384()))
	p521 := testpki.Root(t, "P-521", testpki.ECDSA(t, elliptic.P521()))
	ed25519 := testpki.Root(t, "Ed25519", testpki.Ed25519(t))
	// The last octet of 1.2.840.113549.1.1.x tells the algorithms of PKCS #1 apart.
	pkcs1 := func(x byte) []byte { return []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, x, 5, 0} }
	hash256 := func(b []byte) []byte { h := sha256.Sum256(b); return h[:] }
	hash384 := func(b []byte) []byte { h := sha512.Sum384(b); return h[:] }
	hash512 := func(b []byte) []byte { h := sha512.Sum512(b); return h[:] }
	for _, tc := range []struct {
		name        string
		certificate tls.Certificate
		algorithm   x509.SignatureAlgorithm
		hash        func([]byte) []byte // nil: there is no binding
		why         string
	}{
		{"MD5", claim(t, rsa.Issue(t, serverName), pkcs1(11), pkcs1(4)), x509.MD5WithRSA, hash256, ""},
		{"RSA SHA-1", claim(t, rsa.Issue(t, serverName), pkcs1(11), pkcs1(5)), x509.SHA1WithRSA, hash256, ""},
		{"ECDSA SHA-1", p256.Issue(t, serverName, testpki.SHA1()), x509.ECDSAWithSHA1, hash256, ""},
		{"RSA SHA-256", rsa.Issue(t, serverName), x509.SHA256WithRSA, hash256, ""},
		{"RSA SHA-384", rsa.Issue(t, serverName, withAlgorithm(x509.SHA384WithRSA)), x509.SHA384WithRSA, hash384, ""},
		{"RSA SHA-512", rsa.Issue(t, serverName, withAlgorithm(x509.SHA512WithRSA)), x509.SHA512WithRSA, hash512, ""},
		{"RSA-PSS SHA-256", rsa.Issue(t, serverName, withAlgorithm(x509.SHA256WithRSAPSS)), x509.SHA256WithRSAPSS, hash256, ""},
		{"RSA-PSS SHA-384", rsa.Issue(t, serverName, withAlgorithm(x509.SHA384WithRSAPSS)), x509.SHA384WithRSAPSS, hash384, ""},
		{"RSA-PSS SHA-512", rsa.Issue(t, serverName, withAlgorithm(x509.SHA512WithRSAPSS)), x509.SHA512WithRSAPSS, hash512, ""},
		{"ECDSA SHA-256", p256.Issue(t, serverName), x509.ECDSAWithSHA256, hash256, ""},
		{"ECDSA SHA-384", p384.Issue(t, serverName), x509.ECDSAWithSHA384, hash384, ""},
		{"ECDSA SHA-512", p521.Issue(t, serverName), x509.ECDSAWithSHA512, hash512, ""},
		{"an Ed25519 key, signed with ECDSA", p384.Issue(t, serverName, testpki.Ed25519(t)), x509.ECDSAWithSHA384, hash384, ""},
		{"Ed25519", ed25519.Issue(t, serverName), x509.PureEd25519, nil, "signed with Ed25519"},
		{"MD2", claim(t, rsa.Issue(t, serverName), pkcs1(11), pkcs1(2)), x509.UnknownSignatureAlgorithm, nil, "does not know how"},
		{"SHA-224", claim(t, rsa.Issue(t, serverName), pkcs1(11), pkcs1(14)), x509.UnknownSignatureAlgorithm, nil, "does not know how"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.Equal(t, tc.algorithm, tc.certificate.Leaf.SignatureAlgorithm)
			client, server := newPair(t,
				&sslstream.ClientOptions{TargetHost: serverName, RemoteCertificateValidationCallback: accept},
				&sslstream.ServerOptions{ServerCertificate: &tc.certificate})
			if tc.hash != nil {
				assert.Equal(t, tc.hash(tc.certificate.Certificate[0]), bindings(t, client, server)[endpoint])
				return
			}
			for _, s := range []*sslstream.Stream{client, server} {
				data, err := s.ChannelBinding(endpoint)
				assert.Nil(t, data)
				assert.ErrorIs(t, err, errors.ErrUnsupported)
				assert.ErrorContains(t, err, "sslstream: the session has no tls-server-end-point channel binding: ")
				assert.ErrorContains(t, err, tc.why)
				_, err = s.ChannelBinding(exporter)
				assert.NoError(t, err, "the other kinds are there")
			}
		})
	}
}

func TestChannelBindingWithRenegotiation(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			co := f.clientOptions()
			co.AllowRenegotiation, co.EnabledProtocols = true, v.protocol
			client, server := newPair(t, co, f.serverOptions())
			_, err := client.ChannelBinding(exporter)
			assert.ErrorIs(t, err, errors.ErrUnsupported)
			assert.ErrorContains(t, err, "tls-exporter channel binding: it allows renegotiation; authenticate without it")
			_, err = server.ChannelBinding(exporter)
			assert.NoError(t, err, "a server never renegotiates")
			kind := endpoint
			if v.protocol == tls12 {
				kind = unique
			}
			ours, err := client.ChannelBinding(kind)
			require.NoError(t, err)
			theirs, err := server.ChannelBinding(kind)
			require.NoError(t, err)
			assert.Equal(t, ours, theirs)
		})
	}
}

func TestChannelBindingStates(t *testing.T) {
	f := newFixture(t)
	kinds := []sslstream.ChannelBindingKind{unique, endpoint, exporter, 0}
	all := func(t *testing.T, s *sslstream.Stream, want error) {
		t.Helper()
		for _, kind := range kinds {
			data, err := s.ChannelBinding(kind)
			assert.Nil(t, data)
			assert.Equal(t, want, err)
		}
	}
	t.Run("before an authentication", func(t *testing.T) {
		client, _ := newStreams(t)
		all(t, client, sslstream.ErrNotAuthenticated)
		client.Close()
		all(t, client, sslstream.ErrNotAuthenticated)
	})
	t.Run("in the validation callback", func(t *testing.T) {
		for _, v := range versions {
			called := 0
			check := func(_ context.Context, s *sslstream.Stream, _ *x509.Certificate, _ *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
				called++
				all(t, s, sslstream.ErrNotAuthenticated)
				return errs, nil
			}
			co := f.clientOptions()
			co.EnabledProtocols, co.RemoteCertificateValidationCallback = v.protocol, check
			newPair(t, co, f.serverOptions())
			assert.Equal(t, 1, called)
		}
	})
	t.Run("after a failed authentication", func(t *testing.T) {
		client, server := newStreams(t)
		co := f.clientOptions()
		co.TargetHost = "other.example"
		err, serverErr := authenticate(t, client, server, co, f.serverOptions())
		all(t, client, authenticationError(t, err))
		all(t, server, authenticationError(t, serverErr))
		client.Close()
		all(t, client, authenticationError(t, err))
	})
	t.Run("after a late refusal", func(t *testing.T) {
		client, server := newStreams(t)
		so := f.serverOptions()
		so.ClientCertificateRequired = true
		err, serverErr := authenticate(t, client, server, f.clientOptions(), so)
		require.NoError(t, err)
		require.Error(t, serverErr)
		_, err = client.Read(make([]byte, 1))
		all(t, client, authenticationError(t, err))
	})
	t.Run("after Detach", func(t *testing.T) {
		co := f.clientOptions()
		co.EnabledProtocols = tls12
		client, server := newPair(t, co, f.serverOptions(), sslstream.LeaveInnerOpen())
		want := bindings(t, client, server)
		_, err := client.Detach()
		require.NoError(t, err)
		assert.Equal(t, want, bindings(t, client, server))
	})
	t.Run("no such kind", func(t *testing.T) {
		client, _ := newPair(t, f.clientOptions(), f.serverOptions())
		for _, kind := range []sslstream.ChannelBindingKind{0, -1, 28} {
			_, err := client.ChannelBinding(kind)
			assert.ErrorContains(t, err, "unknown channel binding kind "+kind.String())
			assert.ErrorContains(t, err, "use ChannelBindingUnique, ")
		}
	})
	t.Run("old protocols", func(t *testing.T) {
		skipInFIPSMode(t, "TLS 1.0 and 1.1")
		for _, protocol := range []sslstream.Protocols{sslstream.ProtocolTLS10, sslstream.ProtocolTLS11} {
			co, so := f.clientOptions(), f.serverOptions()
			co.EnabledProtocols, so.EnabledProtocols = protocol, protocol
			client, server := newPair(t, co, so)
			assert.Len(t, bindings(t, client, server), 3)
		}
	})
}
