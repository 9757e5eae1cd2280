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
	// outlasts is how long it stays beyond our side's timeouts unless it is hung up on, also where the attacks are over
	// meanwhile; 0: it leaves when the timeouts expire, or when the attacks are over.
	outlasts time.Duration
	// mayPass says that our side need not hang up on it.
	mayPass bool
}

// stalledHost is the name by which who never reads lets the server know: both have small buffers then. Between large ones the
// kernels find room now and then, also where nobody reads, so that Close has to wait in some sessions only.
const stalledHost = "stalled.example"

// How an attack ended, besides by an error.
var (
	errNoHandshake = errors.New("no handshake, so no attack")
	errHungUpOn    = errors.New("hung up on")
)

var attacks = []attack{
	{name: "says nothing", outlasts: closeBound, run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return drain(ctx, conn)
	}},
	{name: "stops in the middle of its hello", outlasts: closeBound, run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		hello := r.pki.hello()
		conn.Write(hello[:choice.IntN(len(hello))])
		return drain(ctx, conn)
	}},
	{name: "sends garbage", outlasts: closeBound, run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		garbage := make([]byte, choice.IntN(5000))
		for i := range garbage {
			garbage[i] = byte(choice.Uint32())
		}
		conn.Write(garbage)
		return drain(ctx, conn)
	}},
	{name: "sends a record that is too large", outlasts: closeBound, run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		conn.Write(append([]byte{byte(20 + choice.IntN(5)), 3, 1, 0xff, 0xff}, make([]byte, 0xffff)...))
		return drain(ctx, conn)
	}},
	{name: "hangs up somewhere in the handshake or after it", mayPass: true, run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		tls12 := choice.IntN(2) == 0
		const varies = 8 // an ECDSA signature is not always of the same length
		cut := choice.IntN(r.honest[tls12].exchanged - varies)
		err := r.speak(ctx, &cutter{Conn: conn, left: cut}, tls12)
		if err == nil {
			r.fail(fmt.Errorf("a session that was cut after %d bytes got its echo, TLS 1.2 %v", cut, tls12))
		}
		return err
	}},
	{name: "sends one byte at a time", mayPass: true, run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return r.speak(ctx, fragmenter{conn}, choice.IntN(2) == 0)
	}},
	{name: "flips a bit", mayPass: true, run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		tls12 := choice.IntN(2) == 0
		honest := r.honest[tls12]
		at := choice.IntN(honest.hello)
		if choice.IntN(2) == 0 { // the hello is most of it, and should not get most of the flips
			at = honest.hello + choice.IntN(honest.written-honest.hello)
		}
		f := &flipper{Conn: conn, at: at, bit: byte(1 << choice.IntN(8))}
		err := r.speak(ctx, f, tls12)
		if err == nil && !f.ignored() {
			r.fail(fmt.Errorf("the flipped bit %#02x of byte %d did not matter, landed %v, TLS 1.2 %v", f.bit, at, f.landed, tls12))
		}
		return err
	}},
	{name: "never reads", outlasts: closeBound, run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		conn.(*net.TCPConn).SetReadBuffer(4096)
		config := r.pki.raw()
		config.ServerName, config.InsecureSkipVerify = stalledHost, true
		c := tls.Client(conn, config)
		if c.HandshakeContext(ctx) != nil {
			return errNoHandshake
		}
		// It ends when our side has given up writing, and Close has given up waiting for it.
		for buf := make([]byte, 64<<10); ; {
			if _, err := c.Write(buf); err != nil {
				return unlessOver(ctx, err)
			}
		}
	}},
	{name: "floods with requests for new keys", run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return r.flood(ctx, conn, false, false, func(p *testpeer.Peer) error { return p.SendKeyUpdate(true) })
	}},
	{name: "floods with empty records", run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return r.flood(ctx, conn, false, choice.IntN(2) == 0, func(p *testpeer.Peer) error { return p.Write(testpeer.ApplicationData, nil) })
	}},
	{name: "floods with warnings", run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return r.flood(ctx, conn, false, choice.IntN(2) == 0, func(p *testpeer.Peer) error { return p.Write(testpeer.Alert, []byte{1, 90}) })
	}},
	{name: "wants to renegotiate", run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		hello := r.pki.hello()[5:] // without the header of its record
		return r.flood(ctx, conn, false, choice.IntN(2) == 0, func(p *testpeer.Peer) error { return p.Write(testpeer.Handshake, hello) })
	}},
	{name: "as a server, floods with session tickets", asServer: true, run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		ticket := append([]byte{4, 0, 0, 45, 0, 0, 1, 0, 1, 2, 3, 4, 0, 0, 32}, make([]byte, 34)...)
		return r.flood(ctx, conn, true, false, func(p *testpeer.Peer) error { return p.Write(testpeer.Handshake, ticket) })
	}},
	{name: "as a server, floods with requests to renegotiate", asServer: true, run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return r.flood(ctx, conn, true, true, func(p *testpeer.Peer) error { return p.Write(testpeer.Handshake, []byte{0, 0, 0, 0}) })
	}},
	{name: "as a server, floods with requests for new keys", asServer: true, run: func(r *run, ctx context.Context, conn net.Conn, choice *rand.Rand) error {
		return r.flood(ctx, conn, true, false, func(p *testpeer.Peer) error { return p.SendKeyUpdate(true) })
	}},
}

// attack attacks again and again.
func (r *run) attack(ctx context.Context, a attack, number uint64) {
	choice := rand.New(rand.NewPCG(r.seed, ^number))
	// What attackers do costs them as much here as it costs us: without a pause it would only be seen that they are many.
	pause := func() { r.pause(ctx, r.attackPause/3+time.Duration(choice.Int64N(int64(r.attackPause)*4/3))) }
	for pause(); ctx.Err() == nil; pause() {
		conn, other, err := r.target(a.asServer)
		if err != nil {
			if !r.closing.Load() {
				r.fail(err)
			}
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
		parent := ctx
		if a.outlasts > 0 {
			parent = context.WithoutCancel(ctx)
		}
		once, cancel := context.WithTimeout(parent, 2*r.timeout+a.outlasts) // a handshake's, and a write's
		stop := context.AfterFunc(once, func() { conn.SetDeadline(time.Unix(1, 0)) })
		err = a.run(r, once, conn, choice)
		stop()
		cancel()
		conn.Close()
		if client != nil {
			<-client
		}
		r.tallies.add(a.tally(), 1)
		switch over := ctx.Err() != nil || r.closing.Load(); {
		case over: // it was the end that ended it
		case err == nil:
			r.tallies.add(a.tally()+letBe, 1)
		case errors.Is(err, errNoHandshake):
			r.tallies.add(a.tally()+noHandshake, 1)
		}
	}
}

// What an attack is counted as, besides as one.
const (
	letBe       = " (let be)"
	noHandshake = " (no handshake)"
)

func (a attack) tally() string { return "attack: " + a.name }

// checkAttacks fails where too many attacks were none, or were not answered by hanging up. A few are a matter of a busy machine.
func (r *run) checkAttacks() {
	for _, a := range attacks {
		all := r.tallies.get(a.tally())
		if n := r.tallies.get(a.tally() + noHandshake); n > 3 && n > all/20 {
			r.fail(fmt.Errorf("%d of %d attackers got no handshake: %s", n, all, a.name))
		}
		if n := r.tallies.get(a.tally() + letBe); !a.mayPass && n > 3 && n > all/20 {
			r.fail(fmt.Errorf("%d of %d attackers were not hung up on: %s", n, all, a.name))
		}
	}
}

// target is a connection to our server, or both ends of one.
func (r *run) target(both bool) (conn, other net.Conn, err error) {
	if !both {
		conn, err = net.Dial("tcp", r.address)
		return conn, nil, err
	}
	return pair()
}

// pair is both ends of a connection.
func pair() (conn, other net.Conn, err error) {
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
	ctx, cancel := context.WithTimeout(ctx, patience)
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
func (r *run) speak(ctx context.Context, conn net.Conn, tls12 bool) error {
	config := r.pki.raw()
	if tls12 {
		config.MaxVersion = tls.VersionTLS12
	}
	c := tls.Client(conn, config)
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
			err = errNoHandshake
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
			return unlessOver(ctx, err)
		}
		// 16 are what crypto/tls puts up with. Sealing costs an attacker more than it costs us to refuse it, so one that goes on
		// until it is told takes from us the processor with which to tell it.
		if sent%20 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// drain waits for the other side's end.
func drain(ctx context.Context, conn net.Conn) error {
	_, err := io.Copy(io.Discard, conn)
	if err == nil {
		err = errHungUpOn
	}
	return unlessOver(ctx, err)
}

// unlessOver is err, or nil where that is of the attacker's own end: it was let be until then.
func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// exchange is what speak exchanges over an honest connection, in bytes.
type exchange struct {
	hello     int // the client's first flight
	written   int // by the client, the hello included
	exchanged int // both ways
}

// measureSpeak finds out what speak exchanges, so that what cuts and flips does so where there is something.
func (r *run) measureSpeak(tls12 bool) (exchange, error) {
	conn, other, err := pair()
	if err != nil {
		return exchange{}, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		s := sslstream.New(other)
		defer s.Close()
		if err := s.AuthenticateAsServer(ctx, r.pki.serverOptions()); err != nil {
			served <- err
			return
		}
		_, err := io.Copy(s, s)
		served <- err
	}()
	c := &counter{Conn: conn}
	if err := r.speak(ctx, c, tls12); err != nil {
		return exchange{}, err
	}
	conn.Close()
	return c.exchange, <-served
}

// counter counts.
type counter struct {
	net.Conn
	exchange
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.exchanged += n
	return n, err
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.written == 0 {
		c.hello = n
	}
	c.written += n
	c.exchanged += n
	return n, err
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
	at      int
	bit     byte
	written int
	landed  bool
}

func (f *flipper) Write(p []byte) (int, error) {
	if i := f.at - f.written; i >= 0 && i < len(p) {
		p = append([]byte{}, p...)
		p[i] ^= f.bit
		f.landed = true
	}
	f.written += len(p)
	return f.Conn.Write(p)
}

// ignored tells whether the bit is one of the version in the header of the hello's record. That is in no transcript, and servers
// ignore it (RFC 8446, Section 5.1; RFC 5246, Appendix E.1), while it looks like TLS. All else is covered by Finished or by a MAC.
func (f *flipper) ignored() bool {
	return f.at == 1 && f.bit < 0x10 || f.at == 2 // crypto/tls refuses versions from 16.0
}
