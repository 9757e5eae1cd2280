// Bogo is a shim for the test runner of BoringSSL (ssl/test/runner): a program that opens connections to the runner and does with a
// Stream what the runner's flags say. The runner checks what comes, byte by byte. It exits with 89 where a flag asks for what
// crypto/tls has not.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/sslstream/sslstream"
)

const exitUnimplemented = 89

func main() {
	err := run(os.Args[1:])
	var u unimplemented
	switch {
	case errors.As(err, &u):
		fmt.Fprintln(os.Stderr, u)
		os.Exit(exitUnimplemented)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	all, initial, resumed, err := parse(args)
	if err != nil {
		return err
	}
	if all.is("is-handshaker-supported") {
		fmt.Println("No")
		return nil
	}
	resumptions, err := all.number("resume-count")
	if err != nil {
		return err
	}
	e := &endpoint{}
	for i := range resumptions + 1 {
		c := initial
		if i > 0 {
			c = resumed
		}
		if err := e.connect(c, i > 0); err != nil {
			return err
		}
	}
	return nil
}

// endpoint keeps what the connections share.
type endpoint struct {
	client *sslstream.ClientOptions
	server *sslstream.ServerOptions
}

// connect opens one connection to the runner and runs one session on it.
func (e *endpoint) connect(c config, resumes bool) error {
	conn, err := net.Dial("tcp", net.JoinHostPort("::1", c.text("port")))
	if err != nil && !c.is("ipv6") { // an older runner says nothing of where it listens
		conn, err = net.Dial("tcp", net.JoinHostPort("127.0.0.1", c.text("port")))
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.is("shim-id") {
		var id uint64
		if _, err := fmt.Sscan(c.text("shim-id"), &id); err != nil {
			return err
		}
		if _, err := conn.Write(binary.LittleEndian.AppendUint64(nil, id)); err != nil {
			return err
		}
	}
	s := sslstream.New(conn, sslstream.LeaveInnerOpen())
	err = e.session(s, c, resumes)
	s.Close() // which leaves conn open
	// What is sent already, an alert above all, must reach the runner before the connection is reset.
	if tcp, ok := conn.(*net.TCPConn); ok && err != nil {
		tcp.CloseWrite()
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		for buf := make([]byte, 4096); ; {
			if _, err := conn.Read(buf); err != nil {
				break
			}
		}
	}
	return err
}

func (e *endpoint) authenticate(s *sslstream.Stream, c config) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if c.is("server") {
		opts, err := c.serverOptions()
		if err != nil {
			return err
		}
		if e.server == nil {
			e.server = opts
		}
		// Sessions are resumed by whoever has the ticket keys.
		if err := opts.SetSessionTicketKeys([][32]byte{{1}}); err != nil {
			return err
		}
		return s.AuthenticateAsServer(ctx, opts)
	}
	opts, err := c.clientOptions()
	if err != nil {
		return err
	}
	if e.client == nil {
		e.client = opts
		opts.SessionCache = newSessionCache()
	} else {
		opts.SessionCache = e.client.SessionCache
	}
	return s.AuthenticateAsClient(ctx, opts)
}
