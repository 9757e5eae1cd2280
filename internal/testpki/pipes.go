package testpki

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// TCP returns the two ends of a TCP connection over loopback. They are closed with the test.
func TCP(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	client, err = net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	server = <-accepted
	require.NotNil(t, server)
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// Pipe returns the two ends of a net.Pipe: synchronous, with deadlines.
func Pipe(t testing.TB) (client, server net.Conn) {
	client, server = net.Pipe()
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// IOPipes returns the two ends of a pair of io.Pipes: synchronous, and nothing but Read, Write and Close.
func IOPipes(t testing.TB) (client, server io.ReadWriteCloser) {
	toServer, fromClient := io.Pipe()
	toClient, fromServer := io.Pipe()
	client, server = &ioPipe{toClient, fromClient}, &ioPipe{toServer, fromServer}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

type ioPipe struct {
	r *io.PipeReader
	w *io.PipeWriter
}

func (p *ioPipe) Read(b []byte) (int, error)  { return p.r.Read(b) }
func (p *ioPipe) Write(b []byte) (int, error) { return p.w.Write(b) }

func (p *ioPipe) Close() error {
	p.r.Close()
	return p.w.Close()
}
