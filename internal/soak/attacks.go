package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpeer"
)

// attack is something that a peer can do, to our server or as one to our client.
type attack struct {
	name string
	run  func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error
	// asServer attacks a client of ours, at the other end of conn.
	asServer bool
}

var attacks = []attack{
	{"says nothing", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error { return drain(ctx, conn) }, false},
	{"stops in the middle of its hello", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		hello := r.pki.hello()
		conn.Write(hello[:choice.IntN(len(hello))])
		return drain(ctx, conn)
	}, false},
	{"sends garbage", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		garbage := make([]byte, choice.IntN(5000))
		for i := range garbage {
			garbage[i] = byte(choice.Uint32())
		}
		conn.Write(garbage)
		return drain(ctx, conn)
	}, false},
	{"sends a record that is too large", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		conn.Write(append([]byte{byte(20 + choice.IntN(5)), 3, 1, 0xff, 0xff}, make([]byte, 0xffff)...))
		return drain(ctx, conn)
	}, false},
	{"hangs up somewhere in the handshake or after it", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return r.speak(ctx, &cutter{Conn: conn, left: choice.IntN(6000)})
	}, false},
	{"sends one byte at a time", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return r.speak(ctx, fragmenter{conn})
	}, false},
	{"flips a bit", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return r.speak(ctx, &flipper{Conn: conn, at: choice.IntN(6000), bit: byte(1 << choice.IntN(8))})
	}, false},
	{"never reads", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		c := tls.Client(conn, r.pki.raw())
		if err := c.HandshakeContext(ctx); err != nil {
			return err
		}
		conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
		for buf := make([]byte, 64<<10); ctx.Err() == nil; {
			if _, err := c.Write(buf); err != nil {
				return err
			}
		}
		return nil
	}, false},
	{"floods with requests for new keys", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return r.flood(ctx, conn, false, false, func(p *testpeer.Peer) error { return p.SendKeyUpdate(true) })
	}, false},
	{"floods with empty records", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return r.flood(ctx, conn, false, choice.IntN(2) == 0, func(p *testpeer.Peer) error { return p.Write(testpeer.ApplicationData, nil) })
	}, false},
	{"floods with warnings", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return r.flood(ctx, conn, false, choice.IntN(2) == 0, func(p *testpeer.Peer) error { return p.Write(testpeer.Alert, []byte{1, 90}) })
	}, false},
	{"wants to renegotiate", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		hello := r.pki.hello()[5:] // without the header of its record
		return r.flood(ctx, conn, false, choice.IntN(2) == 0, func(p *testpeer.Peer) error { return p.Write(testpeer.Handshake, hello) })
	}, false},
	{"as a server, floods with session tickets", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		ticket := append([]byte{4, 0, 0, 45, 0, 0, 1, 0, 1, 2, 3, 4, 0, 0, 32}, make([]byte, 34)...)
		return r.flood(ctx, conn, true, false, func(p *testpeer.Peer) error { return p.Write(testpeer.Handshake, ticket) })
	}, true},
	{"as a server, floods with requests to renegotiate", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return r.flood(ctx, conn, true, true, func(p *testpeer.Peer) error { return p.Write(testpeer.Handshake, []byte{0, 0, 0, 0}) })
	}, true},
	{"as a server, floods with requests for new keys", func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return r.flood(ctx, conn, true, false, func(p *testpeer.Peer) error { return p.SendKeyUpdate(true) })
	}, true},
}

// attack attacks again and again.
func (r *run) attack(ctx context.Context, a attack, number uint64) {
	choice := rand.New(rand.NewPCG(r.seed, ^number))
	for ctx.Err() == nil {
		conn, other, err := r.target(a.asServer)
		if err != nil {
			r.fail(err)
			return
		}
		var client chan struct{}
		if a.asServer {
			client = make(chan struct{})
			renegotiates := choice.IntN(2) == 0
			go func() {
				defer close(client)
				r.victim(ctx, other, renegotiates)
			}()
		}
		once, cancel := context.WithTimeout(ctx, 3*time.Second)
		stop := context.AfterFunc(once, func() { conn.SetDeadline(time.Unix(1, 0)) })
		err = a.run(r, once, conn, choice)
		stop()
		cancel()
		conn.Close()
		if client != nil {
			<-client
		}
		r.tallies.add("attack: "+a.name, 1)
		if err == nil {
			r.tallies.add("attack: "+a.name+" (let be)", 1)
		}
		// What attackers do costs them as much here as it costs us: without a pause it would only be seen that they are many.
		time.Sleep(time.Duration(100+choice.IntN(400)) * time.Millisecond)
	}
}

// target is a connection to our server, or both ends of one.
func (r *run) target(both bool) (conn, other net.Conn, err error) {
	if !both {
		conn, err = net.Dial("tcp", r.address)
		return conn, nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if other, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	conn, err = l.Accept()
	return conn, other, err
}

// victim is a client of ours that reads from whom it must not trust, and says a word now and then.
func (r *run) victim(ctx context.Context, conn net.Conn, renegotiates bool) {
	s := sslstream.New(conn)
	defer r.closed(s)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	opts := r.pki.clientOptions(sslstream.ProtocolTLS12 | sslstream.ProtocolTLS13)
	opts.AllowRenegotiation = renegotiates
	if s.AuthenticateAsClient(ctx, opts) != nil {
		return
	}
	go func() {
		for {
			if _, err := s.WriteContext(ctx, []byte("word")); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	for buf := make([]byte, 100); ; {
		if _, err := s.ReadContext(ctx, buf); err != nil {
			return
		}
	}
}

// speak is an honest client over a dishonest connection: what comes back must be what was sent, or nothing.
func (r *run) speak(ctx context.Context, conn net.Conn) error {
	c := tls.Client(conn, r.pki.raw())
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	sent := []byte("what must come back, or nothing")
	if _, err := c.Write(sent); err != nil {
		return err
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != string(sent) {
		r.fail(fmt.Errorf("%q came back as %q", sent, got))
	}
	return nil
}

// flood shakes hands, in TLS 1.3 or in 1.2, and then sends the same again and again, reading what comes.
func (r *run) flood(ctx context.Context, conn net.Conn, asServer, tls12 bool, send func(*testpeer.Peer) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p != errTest {
				panic(p)
			}
			err = errTest // the handshake failed
		}
	}()
	config, role := r.pki.raw(), testpeer.Client
	if asServer {
		config, role = r.pki.rawServer(), testpeer.Server
	}
	if tls12 {
		config.MaxVersion = tls.VersionTLS12
	}
	p := role(tester{}, conn, config)
	go io.Copy(io.Discard, conn)
	for sent := 1; ctx.Err() == nil; sent++ {
		if err := send(p); err != nil {
			return err
		}
		if sent%100 == 0 {
			time.Sleep(time.Millisecond) // sealing costs an attacker more than it costs us to refuse it
		}
	}
	return nil
}

// drain waits for the other side's end.
func drain(ctx context.Context, conn net.Conn) error {
	_, err := io.Copy(io.Discard, conn)
	if err == nil && ctx.Err() == nil {
		err = errors.New("hung up on")
	}
	return err
}

// cutter hangs up after so many bytes, either way.
type cutter struct {
	net.Conn
	left int
}

func (c *cutter) spend(n int) {
	if c.left -= n; c.left <= 0 {
		c.Conn.Close()
	}
}

func (c *cutter) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), max(c.left, 1))])
	c.spend(n)
	return n, err
}

func (c *cutter) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p[:min(len(p), max(c.left, 1))])
	c.spend(n)
	if n < len(p) && err == nil {
		err = io.ErrClosedPipe
	}
	return n, err
}

// fragmenter writes one byte at a time.
type fragmenter struct{ net.Conn }

func (f fragmenter) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := f.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// flipper flips one bit of what is written.
type flipper struct {
	net.Conn
	at  int
	bit byte
}

func (f *flipper) Write(p []byte) (int, error) {
	if f.at >= 0 && f.at < len(p) {
		p = append([]byte{}, p...)
		p[f.at] ^= f.bit
	}
	f.at -= len(p)
	return f.Conn.Write(p)
}
