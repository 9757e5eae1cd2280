//go:build unix

package sslstream_test

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream/internal/testpki"
)

// TestWriteToAResetConnection has the peer reset the connection: the Write that finds out says so.
func TestWriteToAResetConnection(t *testing.T) {
	f := newFixture(t)
	a, b := testpki.TCP(t)
	client, server := newStream(t, a), newStream(t, b)
	err, serverErr := authenticate(t, client, server, f.clientOptions(), f.serverOptions())
	require.NoError(t, errors.Join(err, serverErr))
	exchange(t, client, server)
	require.NoError(t, b.(*net.TCPConn).SetLinger(0))
	require.NoError(t, b.Close())
	for end := time.Now().Add(5 * time.Second); err == nil && time.Now().Before(end); {
		_, err = client.Write([]byte("x"))
	}
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	assert.Equal(t, "write", op.Op)
	assert.ErrorIs(t, err, syscall.ECONNRESET)
}
