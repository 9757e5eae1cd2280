//go:build unix

package transport

import (
	"io"
	"net"
	"os"
	"syscall"
)

// socketReader reads a socket of the kernel's once there is something to read, so that it takes memory only then: as much
// as may come at once, however many connections wait.
type socketReader struct {
	conn net.Conn
	raw  syscall.RawConn
	try  func(fd uintptr) bool // made once: it would be allocated for each read

	into *buffer
	n    int
	err  error
}

// newSocketReader returns nil for what is no socket of the kernel's, or something that has one and may do more than it.
func newSocketReader(inner any) *socketReader {
	var raw syscall.RawConn
	var err error
	switch c := inner.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		if c.LocalAddr().Network() != "unix" { // a datagram ends with the read that brings a part of it
			return nil
		}
		raw, err = c.SyscallConn()
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	s := &socketReader{conn: inner.(net.Conn), raw: raw}
	s.try = s.once
	return s
}

// once tries to read; false waits until there is something to be read.
func (s *socketReader) once(fd uintptr) bool {
	b := s.into.space(batchSlab)
	for {
		s.n, s.err = syscall.Read(int(fd), b)
		if s.err != syscall.EINTR {
			break
		}
	}
	s.into.extend(max(s.n, 0))
	return s.err != syscall.EAGAIN
}

// read reads once into an empty buffer. It fails as the connection's Read would.
func (s *socketReader) read(into *buffer) (int, error) {
	s.into, s.n, s.err = into, 0, nil
	err := s.raw.Read(s.try)
	s.into = nil
	switch {
	case err != nil:
		return 0, err
	case s.err != nil:
		return 0, &net.OpError{Op: "read", Net: s.conn.LocalAddr().Network(), Source: s.conn.LocalAddr(), Addr: s.conn.RemoteAddr(), Err: os.NewSyscallError("read", s.err)}
	case s.n == 0:
		return 0, io.EOF
	}
	return s.n, nil
}
