package interop_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// relay passes one connection on to a server, looks at the client's records, and can end it as no TLS stack would.
type relay struct {
	net.Conn  // the client's end
	near, far net.Conn
	records   records
}

// records looks at what is written to it.
type records struct {
	mu     sync.Mutex
	header []byte // of the record that goes by
	left   int    // of it to come
	last   []byte // the last complete record's header
}

// through dials the port by a relay.
func through(t *testing.T, port string) *relay {
	t.Helper()
	far := dial(t, port)
	own, near := accept(t)
	r := &relay{Conn: dial(t, own), far: far}
	r.near = near()
	go func() {
		io.Copy(r.near, far)
		r.near.(*net.TCPConn).CloseWrite()
	}()
	go func() {
		io.Copy(io.MultiWriter(&r.records, far), r.near)
		far.(*net.TCPConn).CloseWrite()
	}()
	return r
}

// Write takes it apart.
func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range p {
		if len(r.header) < 5 {
			if r.header = append(r.header, b); len(r.header) == 5 {
				r.left = int(r.header[3])<<8 | int(r.header[4])
			}
		} else {
			r.left--
		}
		if len(r.header) == 5 && r.left == 0 {
			r.last, r.header = r.header, nil
		}
	}
	return len(p), nil
}

// lastIsAlert says whether the last thing is an alert: in TLS 1.3 one is told by its length.
func (r *records) lastIsAlert() bool {
	const alert, applicationData, sealedAlert = 21, 23, 2 + 1 + 16
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.last) == 5 && (r.last[0] == alert || r.last[0] == applicationData && r.last[3] == 0 && r.last[4] == sealedAlert)
}

// cut ends the connection, for both sides and between two records.
func (r *relay) cut(t *testing.T) {
	t.Helper()
	require.NoError(t, r.near.(*net.TCPConn).CloseWrite()) // first, or the server's alert might still come by
	require.NoError(t, r.far.(*net.TCPConn).CloseWrite())
}
