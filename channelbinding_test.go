package sslstream_test

import (
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

var bindingKinds = []sslstream.ChannelBindingKind{sslstream.ChannelBindingUnique, sslstream.ChannelBindingEndpoint, sslstream.ChannelBindingExporter}

func TestChannelBindingKinds(t *testing.T) {
	var names []string
	for _, kind := range bindingKinds {
		names = append(names, kind.String())
	}
	assert.Equal(t, []string{"tls-unique", "tls-server-end-point", "tls-exporter"}, names)
	assert.Equal(t, []sslstream.ChannelBindingKind{25, 26, 27}, bindingKinds, ".NET's numbers, and ours after them")
	assert.Equal(t, "3", sslstream.ChannelBindingKind(3).String())
}

// TestChannelBinding holds both sides of full and resumed sessions against each other, and sessions against each other.
func TestChannelBinding(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			co, so := f.clientOptions(), f.serverOptions()
			co.EnabledProtocols = v.protocol
			seen := map[string]bool{}
			for _, resumed := range []bool{false, true} {
				client, server := newPair(t, co, so)
				exchange(t, client, server)
				require.Equal(t, resumed, client.Security().Resumed)
				for _, kind := range bindingKinds {
					ours, err := client.ChannelBinding(kind)
					theirs, serverErr := server.ChannelBinding(kind)
					if kind == sslstream.ChannelBindingUnique && v.protocol == sslstream.ProtocolTLS13 {
						assert.ErrorIs(t, err, errors.ErrUnsupported)
						assert.ErrorContains(t, err, "ChannelBindingExporter", "it says what to use")
						assert.ErrorIs(t, serverErr, errors.ErrUnsupported)
						continue
					}
					require.NoError(t, errors.Join(err, serverErr), kind)
					assert.Equal(t, ours, theirs, kind)
					assert.NotEmpty(t, ours, kind)
					if kind == sslstream.ChannelBindingEndpoint {
						want := sha256.Sum256(f.server.Leaf.Raw)
						assert.Equal(t, want[:], ours)
						continue
					}
					assert.False(t, seen[string(ours)], "%v is another one in each session", kind)
					seen[string(ours)] = true
					require.NoError(t, client.Close())
					after, err := client.ChannelBinding(kind)
					require.NoError(t, err, "after Close")
					assert.Equal(t, ours, after)
				}
			}
		})
	}
}

// TestEndpointBinding has server certificates with each kind of signature.
func TestEndpointBinding(t *testing.T) {
	sha384 := func(b []byte) []byte { h := sha512.Sum384(b); return h[:] }
	for _, tc := range []struct {
		name string
		root []testpki.Option
		leaf []testpki.Option
		hash func([]byte) []byte // nil: there is none
	}{
		{"ECDSA with SHA-256", []testpki.Option{testpki.ECDSA(t, elliptic.P256())}, nil, func(b []byte) []byte { h := sha256.Sum256(b); return h[:] }},
		{"ECDSA with SHA-384", []testpki.Option{testpki.ECDSA(t, elliptic.P384())}, nil, sha384},
		{"ECDSA with SHA-512", []testpki.Option{testpki.ECDSA(t, elliptic.P521())}, nil, func(b []byte) []byte { h := sha512.Sum512(b); return h[:] }},
		{"RSA with SHA-256", []testpki.Option{testpki.RSA(2048)}, nil, func(b []byte) []byte { h := sha256.Sum256(b); return h[:] }},
		{
			"RSA-PSS with SHA-384", []testpki.Option{testpki.RSA(2048)},
			[]testpki.Option{testpki.Template(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA384WithRSAPSS })}, sha384,
		},
		{"SHA-1", []testpki.Option{testpki.RSA(2048)}, []testpki.Option{testpki.SHA1()}, func(b []byte) []byte { h := sha256.Sum256(b); return h[:] }},
		{"Ed25519", []testpki.Option{testpki.Ed25519(t)}, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cert := testpki.Root(t, "Root", tc.root...).Issue(t, serverName, tc.leaf...)
			client, server := newPair(t, &sslstream.ClientOptions{RemoteCertificateValidationCallback: accept}, &sslstream.ServerOptions{ServerCertificate: &cert})
			ours, err := client.ChannelBinding(sslstream.ChannelBindingEndpoint)
			theirs, serverErr := server.ChannelBinding(sslstream.ChannelBindingEndpoint)
			if tc.hash == nil {
				assert.ErrorIs(t, err, errors.ErrUnsupported)
				assert.ErrorIs(t, serverErr, errors.ErrUnsupported)
				assert.ErrorContains(t, err, "Ed25519")
				return
			}
			require.NoError(t, errors.Join(err, serverErr))
			assert.Equal(t, tc.hash(cert.Leaf.Raw), ours)
			assert.Equal(t, ours, theirs)
		})
	}
}

func TestChannelBindingFails(t *testing.T) {
	f := newFixture(t)
	t.Run("before", func(t *testing.T) {
		client, _ := newStreams(t)
		_, err := client.ChannelBinding(sslstream.ChannelBindingExporter)
		assert.ErrorIs(t, err, sslstream.ErrNotAuthenticated)
	})
	t.Run("after a failure", func(t *testing.T) {
		client, server := newStreams(t)
		co := f.clientOptions()
		co.TargetHost = "other.example"
		_, serverErr := authenticate(t, client, server, co, f.serverOptions())
		_, err := server.ChannelBinding(sslstream.ChannelBindingExporter)
		assert.Same(t, authenticationError(t, serverErr), err)
	})
	t.Run("unknown kind", func(t *testing.T) {
		client, _ := newPair(t, f.clientOptions(), f.serverOptions())
		_, err := client.ChannelBinding(0)
		assert.ErrorContains(t, err, "ChannelBindingExporter")
	})
	t.Run("where the session may be renegotiated", func(t *testing.T) {
		co := f.clientOptions()
		co.AllowRenegotiation, co.EnabledProtocols = true, sslstream.ProtocolTLS12
		client, _ := newPair(t, co, f.serverOptions())
		_, err := client.ChannelBinding(sslstream.ChannelBindingExporter)
		assert.ErrorIs(t, err, errors.ErrUnsupported)
	})
	t.Run("old protocol", func(t *testing.T) {
		co, so := f.clientOptions(), f.serverOptions()
		co.EnabledProtocols, so.EnabledProtocols = sslstream.ProtocolTLS11, sslstream.ProtocolTLS11
		co.TLSConfig = &tls.Config{}
		client, server := newPair(t, co, so)
		ours, err := client.ChannelBinding(sslstream.ChannelBindingUnique)
		theirs, serverErr := server.ChannelBinding(sslstream.ChannelBindingUnique)
		require.NoError(t, errors.Join(err, serverErr))
		assert.Equal(t, ours, theirs)
	})
}
