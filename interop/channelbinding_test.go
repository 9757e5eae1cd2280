package interop_test

import (
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
)

// TestChannelBindingWithGnuTLS holds all three channel bindings against those that gnutls-cli prints.
func TestChannelBindingWithGnuTLS(t *testing.T) {
	gnutls := need(t, "gnutls-cli", "apt-get install gnutls-bin")
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

// TestExporterWithOpenSSL compares with what openssl exports; it gives no context, which in TLS 1.3 is the same as an
// empty one (RFC 8446, Section 7.5).
func TestExporterWithOpenSSL(t *testing.T) {
	openssl := need(t, "openssl", installOpenSSL)
	p := newPKI(t)
	port, conn := accept(t)
	c := start(t, openssl, "s_client", "-connect", "127.0.0.1:"+port, "-tls1_3", "-servername", serverName, "-CAfile", p.caFile,
		"-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32")
	stream := sslstream.New(conn())
	defer stream.Close()
	require.NoError(t, stream.AuthenticateAsServer(testContext(t), &sslstream.ServerOptions{ServerCertificate: &p.server}))
	ours, err := stream.ChannelBinding(sslstream.ChannelBindingExporter)
	require.NoError(t, err)
	c.shows("Keying material: " + strings.ToUpper(hex.EncodeToString(ours)))
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
		stream.SetReadTimeout(10 * time.Second)
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
