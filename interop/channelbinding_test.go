package interop_test

import (
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
)

const installGnuTLS = "apt-get install gnutls-bin"

// TestChannelBindingWithGnuTLS holds all three channel bindings against those that gnutls-cli prints.
func TestChannelBindingWithGnuTLS(t *testing.T) {
	gnutls := need(t, "gnutls-cli", installGnuTLS)
	p := newPKI(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			port, conn := accept(t)
			c := start(t, gnutls, "-V", "--x509cafile", p.caFile, "-p", port, "127.0.0.1", "--sni-hostname", serverName, "--verify-hostname", serverName)
			stream := sslstream.New(conn())
			defer stream.Close()
			require.NoError(t, stream.AuthenticateAsServer(testContext(t), &sslstream.ServerOptions{ServerCertificate: &p.server, EnabledProtocols: v.protocol}))
			for _, kind := range []sslstream.ChannelBindingKind{sslstream.ChannelBindingUnique, sslstream.ChannelBindingEndpoint, sslstream.ChannelBindingExporter} {
				ours, err := stream.ChannelBinding(kind)
				if kind == sslstream.ChannelBindingUnique && v.protocol == sslstream.ProtocolTLS13 {
					assert.ErrorIs(t, err, errors.ErrUnsupported)
					c.shows("'tls-unique': not available")
					continue
				}
				require.NoError(t, err)
				c.shows("'" + kind.String() + "': " + hex.EncodeToString(ours))
			}
		})
	}
}

// TestChannelBindingWithoutExtendedMasterSecret has a TLS 1.2 client without it (RFC 7627), in a session and in one that resumes
// it: the first has a tls-unique, neither a tls-exporter.
func TestChannelBindingWithoutExtendedMasterSecret(t *testing.T) {
	gnutls := need(t, "gnutls-cli", installGnuTLS)
	p := newPKI(t)
	port, conn := accept(t)
	c := start(t, gnutls, "-V", "-r", "--x509cafile", p.caFile, "-p", port, "127.0.0.1", "--sni-hostname", serverName, "--verify-hostname", serverName,
		"--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.2:%NO_SESSION_HASH")
	so := &sslstream.ServerOptions{ServerCertificate: &p.server}
	for _, resumed := range []bool{false, true} {
		stream := sslstream.New(conn())
		defer stream.Close()
		require.NoError(t, stream.AuthenticateAsServer(testContext(t), so))
		require.Equal(t, resumed, stream.Security().Resumed)
		_, err := stream.ChannelBinding(sslstream.ChannelBindingExporter)
		assert.ErrorIs(t, err, errors.ErrUnsupported)
		assert.ErrorContains(t, err, "extended master secret")
		ours, err := stream.ChannelBinding(sslstream.ChannelBindingUnique)
		if resumed {
			assert.ErrorIs(t, err, errors.ErrUnsupported)
			assert.ErrorContains(t, err, "extended master secret")
			break
		}
		require.NoError(t, err)
		c.shows("'tls-unique': " + hex.EncodeToString(ours))
		stream.CloseWrite()
	}
}

// TestExporterWithOpenSSL compares with what openssl exports, in either role; it gives no context, which in TLS 1.3 is the
// same as an empty one (RFC 8446, Section 7.5).
func TestExporterWithOpenSSL(t *testing.T) {
	openssl := need(t, "openssl", installOpenSSL)
	p := newPKI(t)
	export := []string{"-tls1_3", "-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32"}
	same := func(t *testing.T, stream *sslstream.Stream, peer *peer) {
		t.Helper()
		ours, err := stream.ChannelBinding(sslstream.ChannelBindingExporter)
		require.NoError(t, err)
		peer.shows("Keying material: " + strings.ToUpper(hex.EncodeToString(ours)))
	}
	t.Run("server", func(t *testing.T) {
		so := &sslstream.ServerOptions{ServerCertificate: &p.server}
		session := filepath.Join(t.TempDir(), "session")
		args := append([]string{"s_client", "-servername", serverName, "-CAfile", p.caFile}, export...)
		for _, resumed := range []bool{false, true} {
			port, conn := accept(t)
			file := "-sess_out"
			if resumed {
				file = "-sess_in"
			}
			c := start(t, openssl, append(args, "-connect", "127.0.0.1:"+port, file, session)...)
			stream := sslstream.New(conn())
			defer stream.Close()
			require.NoError(t, stream.AuthenticateAsServer(testContext(t), so))
			require.Equal(t, resumed, stream.Security().Resumed)
			same(t, stream, c)
			require.NoError(t, stream.CloseWrite())
			c.ends() // it has read the ticket before
		}
	})
	t.Run("client", func(t *testing.T) {
		port := freePort(t)
		s := start(t, openssl, append([]string{"s_server", "-accept", "127.0.0.1:" + port, "-cert", p.serverFile, "-key", p.serverKey, "-cert_chain", p.serverFile, "-naccept", "1"}, export...)...)
		s.shows("ACCEPT")
		stream := sslstream.New(dial(t, port))
		defer stream.Close()
		require.NoError(t, stream.AuthenticateAsClient(testContext(t), &sslstream.ClientOptions{TargetHost: serverName, CertificateChainPolicy: p.trust()}))
		same(t, stream, s)
	})
}

// TestChannelBindingWhileRenegotiating asks for it while another goroutine reads, and openssl begins a new handshake.
func TestChannelBindingWhileRenegotiating(t *testing.T) {
	openssl := need(t, "openssl", installOpenSSL)
	p := newPKI(t)
	port := freePort(t)
	s := start(t, openssl, "s_server", "-accept", "127.0.0.1:"+port, "-tls1_2", "-cert", p.serverFile, "-key", p.serverKey, "-cert_chain", p.serverFile, "-CAfile", p.caFile, "-naccept", "1")
	s.shows("ACCEPT")
	stream := sslstream.New(dial(t, port))
	defer stream.Close()
	require.NoError(t, stream.AuthenticateAsClient(testContext(t), &sslstream.ClientOptions{
		TargetHost: serverName, CertificateChainPolicy: p.trust(), AllowRenegotiation: true, ClientCertificates: []tls.Certificate{p.client},
	}))
	before, err := stream.ChannelBinding(sslstream.ChannelBindingUnique)
	require.NoError(t, err)

	s.shows("CIPHER is")
	seen, stop, asked := map[string]bool{}, make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			data, err := stream.ChannelBinding(sslstream.ChannelBindingUnique)
			seen[string(data)] = true
			select {
			case <-stop:
				asked <- err
				return
			default:
			}
		}
	}()
	read := make(chan struct{})
	go func() {
		defer close(read)
		stream.SetReadTimeout(patience)
		buf := make([]byte, 6)
		_, err := io.ReadFull(stream, buf)
		assert.NoError(t, err)
		assert.Equal(t, "after\n", string(buf))
	}()
	s.say("R") // renegotiate, and ask for a certificate
	s.shows("CN = client.example")
	s.say("after")
	<-read
	close(stop)
	require.NoError(t, <-asked)
	after, err := stream.ChannelBinding(sslstream.ChannelBindingUnique)
	require.NoError(t, err)
	assert.NotEqual(t, before, after, "it is that of the latest handshake (RFC 5929, Section 3.1)")
	delete(seen, string(before))
	delete(seen, string(after))
	assert.Empty(t, seen, "nothing in between")
}
