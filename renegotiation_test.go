package sslstream_test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpeer"
	"github.com/sslstream/sslstream/internal/testpki"
)

// TestRenegotiationRefused has the peer of a TLS 1.2 session want to renegotiate, where that is not allowed: what came
// before it is delivered, both sides learn of the refusal, and the session stays ended. interop/ renegotiates for real.
func TestRenegotiationRefused(t *testing.T) {
	const (
		noRenegotiation   tls.AlertError = 100
		unexpectedMessage tls.AlertError = 10
	)
	f := newFixture(t)
	a, b := testpki.TCP(t)
	go tls.Client(a, &tls.Config{ServerName: serverName}).Handshake()
	hello := make([]byte, 5)
	_, err := io.ReadFull(b, hello)
	require.NoError(t, err)
	hello = make([]byte, binary.BigEndian.Uint16(hello[3:]))
	_, err = io.ReadFull(b, hello)
	require.NoError(t, err)
	b.Close()

	for name, test := range map[string]struct {
		asServer bool // we are
		message  []byte
		alert    tls.AlertError
		says     string
	}{
		"a server's HelloRequest":      {false, []byte{0, 0, 0, 0}, noRenegotiation, "no renegotiation"},
		"a client's ClientHello":       {true, hello, unexpectedMessage, "unexpected handshake message"},
		"a ClientHello from a server":  {false, hello, unexpectedMessage, "unexpected handshake message"},
		"a HelloRequest from a client": {true, []byte{0, 0, 0, 0}, noRenegotiation, "no renegotiation"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := testpki.TCP(t)
			s := newStream(t, b)
			defer s.Close()
			done := make(chan error, 1)
			var peer *testpeer.Peer
			if test.asServer {
				go func() { done <- s.AuthenticateAsServer(testContext(t), f.serverOptions()) }()
				peer = testpeer.Client(t, a, &tls.Config{ServerName: serverName, RootCAs: testpki.Pool(f.root), MaxVersion: tls.VersionTLS12})
			} else {
				go func() { done <- s.AuthenticateAsClient(testContext(t), f.clientOptions()) }()
				peer = testpeer.Server(t, a, &tls.Config{Certificates: []tls.Certificate{f.server}, MaxVersion: tls.VersionTLS12})
			}
			require.NoError(t, <-done)
			require.Equal(t, sslstream.ProtocolTLS12, s.Protocol())
			_, err := io.WriteString(s, "to the peer")
			require.NoError(t, err)
			_, data, err := peer.Read()
			require.NoError(t, err)
			require.Equal(t, "to the peer", string(data))

			require.NoError(t, peer.Write(testpeer.ApplicationData, []byte("before")))
			require.NoError(t, peer.Write(testpeer.Handshake, test.message))
			require.NoError(t, peer.Write(testpeer.ApplicationData, []byte("behind")))
			assert.Equal(t, "before", readString(t, s, 6))
			for range 2 {
				s.SetReadDeadline(time.Now().Add(5 * time.Second))
				n, err := s.Read(make([]byte, 1))
				assert.Zero(t, n)
				assert.ErrorContains(t, err, test.says)
			}
			kind, data, err := peer.Read()
			require.NoError(t, err)
			assert.EqualValues(t, testpeer.Alert, kind)
			assert.Equal(t, test.alert, tls.AlertError(data[1]))
		})
	}
}
