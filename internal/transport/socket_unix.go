//go:build unix

package transport

import (
	"net"
	"syscall"
)

// socketWriter writes to a socket of the kernel's without ever waiting.
type socketWriter struct {
	raw syscall.RawConn
	try func(fd uintptr) bool // made once: it would be allocated for each write

	p []byte
	n int
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
	w := &socketWriter{raw: raw}
	w.try = func(fd uintptr) bool {
		w.n, _ = syscall.Write(int(fd), w.p)
		return true // whatever came of it
	}
	return w
}

// write returns how much of p the socket took at once. What is wrong where it took less shows when the rest is written.
func (w *socketWriter) write(p []byte) int {
	w.p, w.n = p, 0
	w.raw.Write(w.try)
	w.p = nil
	return max(w.n, 0)
}
