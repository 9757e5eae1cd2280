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
	// BoringSSL asks nobody on resumption unless it is told to; a Stream's callback is always asked.
	if resumptions > 0 && resumed.is("verify-fail") && !initial.is("verify-fail") && !resumed.is("reverify-on-resume") {
		return unimplemented("resumption without a verdict on the peer")
	}
	e := &endpoint{sessions: newSessionCache()}
	for i := range resumptions + 1 {
		c := &connection{config: initial}
		if i > 0 {
			c = &connection{config: resumed, resumes: true}
		}
		if err := e.connect(c); err != nil {
			return err
		}
		delay, err := c.number("resumption-delay")
		if err != nil {
			return err
		}
		clock = clock.Add(time.Duration(delay) * time.Second)
	}
	return nil
}

// endpoint keeps what the connections share.
type endpoint struct {
	sessions *sessionCache
}

// connection is what is to be done on one, and what the callbacks have seen.
type connection struct {
	config
	resumes      bool
	judged       int  // how often the peer was judged
	bad          bool // the last verdict on it
	full         keyLog
	hello        bool // the client's was looked at
	keepsNothing bool // no session is to be kept
}

// trickle is a connection that gives out one octet per Read.
type trickle struct{ net.Conn }

func (c trickle) Read(b []byte) (int, error) { return c.Conn.Read(b[:min(len(b), 1)]) }

// pause is what a callback begins with: with -async, where BoringSSL's say at first that they are not ready, ours take their time.
func (c *connection) pause() {
	if c.is("async") {
		time.Sleep(time.Millisecond)
	}
}

// connect opens one connection to the runner and runs one session on it.
func (e *endpoint) connect(c *connection) error {
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
	inner := conn
	if c.is("async") { // BoringSSL's transport then takes and gives one octet at a time; a Write of net.Conn's takes all
		inner = trickle{conn}
	}
	s := sslstream.New(inner, sslstream.LeaveInnerOpen())
	err = e.session(s, c)
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

func (e *endpoint) authenticate(s *sslstream.Stream, c *connection) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if c.is("server") {
		opts, err := c.serverOptions()
		if err != nil {
			return err
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
	e.sessions.got = false
	opts.SessionCache = e.sessions
	return s.AuthenticateAsClient(ctx, opts)
}
