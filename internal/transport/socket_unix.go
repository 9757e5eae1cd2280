//go:build unix

package transport

import (
	"net"
	"os"
	"syscall"
)

// socketWriter writes to a socket of the kernel's without ever waiting.
type socketWriter struct {
	conn net.Conn
	raw  syscall.RawConn
	try  func(fd uintptr) bool // made once: it would be allocated for each write

	p   []byte
	n   int
	err error
}

// newSocketWriter returns nil for what is no stream socket of the kernel's, or something that has one and may do more than
// it.
func newSocketWriter(inner any) *socketWriter {
	var raw syscall.RawConn
	var err error
	switch c := inner.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		if a := c.LocalAddr(); a == nil || a.Network() != "unix" {
			return nil
		}
		raw, err = c.SyscallConn()
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	w := &socketWriter{conn: inner.(net.Conn), raw: raw}
	w.try = func(fd uintptr) bool {
		w.n, w.err = syscall.Write(int(fd), w.p)
		return true // whatever came of it
	}
	return w
}

// write returns how much of p the socket took at once. err is what is wrong with the connection, as its own Write would
// say: the system tells it once, so the next Write would only find a broken pipe. What else keeps it from taking all, a
// lack of room or a deadline, shows when the rest is written.
func (w *socketWriter) write(p []byte) (n int, err error) {
	w.p, w.n, w.err = p, 0, nil
	w.raw.Write(w.try)
	w.p = nil
	if w.err != nil && w.err != syscall.EAGAIN && w.err != syscall.EINTR {
		err = &net.OpError{Op: "write", Net: w.conn.LocalAddr().Network(), Source: w.conn.LocalAddr(), Addr: w.conn.RemoteAddr(), Err: os.NewSyscallError("write", w.err)}
	}
	return max(w.n, 0), err
}
