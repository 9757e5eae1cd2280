package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/sslstream/sslstream"
)

// patience is how long a healthy client waits for a handshake, or for the whole echo of one message. Each has its own, so that a long
// session is not one that fails.
const patience = time.Minute

// maxDialing is how many healthy clients shake hands at once: all of them would take the processor from each other for
// longer than any sensible timeout.
const maxDialing = 100

// healthy makes sessions one after the other, each of which must get back what it sends. It says when it has the first.
func (r *run) healthy(number int, ready func()) {
	choice := rand.New(rand.NewPCG(r.seed, uint64(number)))
	opts := r.pki.clientOptions([]sslstream.Protocols{sslstream.ProtocolTLS12, sslstream.ProtocolTLS13}[choice.IntN(2)])
	for round := 0; r.ctx.Err() == nil; round++ {
		err := r.session(opts, func(s *sslstream.Stream) error {
			ready()
			return r.echo(s, choice)
		})
		if err != nil {
			r.fail(fmt.Errorf("healthy stream %d, session %d: %w", number, round, err))
			return
		}
	}
}

// probe sends a small message every 20 ms in one session, and remembers how long it takes to come back.
func (r *run) probe(number int, ready func()) {
	opts := r.pki.clientOptions([]sslstream.Protocols{sslstream.ProtocolTLS12, sslstream.ProtocolTLS13}[number%2])
	err := r.session(opts, func(s *sslstream.Stream) error {
		ready()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for message := make([]byte, 64); ; {
			select {
			case <-tick.C:
			case <-r.ctx.Done():
				return nil
			}
			began := time.Now()
			if err := r.message(s, message, false); err != nil {
				return err
			}
			r.latency.add(time.Since(began))
		}
	})
	if err != nil {
		r.fail(fmt.Errorf("probe %d: %w", number, err))
	}
}

// session connects, and closes what use has used. Nothing happens where the load is over already.
func (r *run) session(opts *sslstream.ClientOptions, use func(*sslstream.Stream) error) error {
	select {
	case r.dialing <- struct{}{}:
	case <-r.ctx.Done():
		return nil
	}
	dialed := sync.OnceFunc(func() { <-r.dialing })
	defer dialed()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.address)
	if err != nil {
		return err
	}
	s := sslstream.New(conn)
	defer r.closed(s)
	r.served.watch(conn.LocalAddr())
	defer r.served.forget(conn.LocalAddr())
	if err := s.AuthenticateAsClient(ctx, opts); err != nil {
		return r.explain(s, fmt.Errorf("handshake: %w", err))
	}
	dialed()
	r.tallies.add(healthySessions, 1)
	if s.ConnectionState().DidResume {
		r.tallies.add(resumedSessions, 1)
	}
	if err := use(s); err != nil {
		return r.explain(s, err)
	}
	return nil
}

// explain adds whose end gave up first, where that can be told.
func (r *run) explain(s *sslstream.Stream, err error) error {
	switch server := r.served.end(s.LocalAddr()); {
	case server != nil:
		return fmt.Errorf("%w (the server's end: %w)", err, server)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w (the client's bound of %v; the server has not given up)", err, patience)
	}
	return err
}

// echo is what a healthy session does: messages of random sizes, each after the other's echo, with calls that are given up in between
// and gone on with; and an end of one of several kinds.
func (r *run) echo(s *sslstream.Stream, choice *rand.Rand) error {
	data := rand.NewChaCha8([32]byte{byte(choice.Uint32())})
	for range 1 + choice.IntN(20) {
		sent := make([]byte, []int{1, 64, 1000, 16 << 10, 16<<10 + 1, 100_000}[choice.IntN(6)])
		data.Read(sent)
		if err := r.message(s, sent, choice.IntN(4) == 0); err != nil {
			return err
		}
		if r.ctx.Err() != nil {
			break
		}
		r.pause(r.ctx, time.Duration(choice.Int64N(int64(r.healthyPause))))
	}
	if choice.IntN(2) == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s.SetWriteTimeout(patience)
		if err := s.CloseWrite(); err != nil {
			return err
		}
		if _, err := s.ReadContext(ctx, make([]byte, 1)); err != io.EOF || !s.ReceivedCloseNotify() {
			return fmt.Errorf("the end is %w, orderly %v", err, s.ReceivedCloseNotify())
		}
	}
	return nil
}

// message sends one and checks its echo.
func (r *run) message(s *sslstream.Stream, sent []byte, impatient bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	written := make(chan error, 1)
	go func() {
		_, err := s.WriteContext(ctx, sent)
		written <- err
	}()
	got := make([]byte, len(sent))
	if err := r.readAll(ctx, s, got, impatient); err != nil {
		return fmt.Errorf("reading %d bytes: %w", len(sent), err)
	}
	if err := <-written; err != nil {
		return fmt.Errorf("writing %d bytes: %w", len(sent), err)
	}
	if !bytes.Equal(sent, got) {
		return fmt.Errorf("the echo of %d bytes is not what was sent", len(sent))
	}
	r.tallies.add(bytesEchoed, int64(len(sent)))
	return nil
}

// readAll fills p. An impatient one gives calls up again and again, which loses nothing.
func (r *run) readAll(ctx context.Context, s *sslstream.Stream, p []byte, impatient bool) error {
	for read := 0; read < len(p); {
		call, cancel := ctx, context.CancelFunc(func() {})
		if impatient {
			call, cancel = context.WithTimeout(ctx, 2*time.Millisecond)
		}
		n, err := s.ReadContext(call, p[read:])
		cancel()
		read += n
		switch {
		case err == nil:
		case impatient && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			r.tallies.add("reads given up, and gone on with", 1)
		default:
			return err
		}
	}
	return nil
}

// latencies collects how long the probes' messages take to come back.
type latencies struct {
	mu  sync.Mutex
	all []time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, d)
}

// latency is what is said of some of them.
type latency struct {
	samples        int
	median, most99 time.Duration
}

// take returns what was collected since the last time.
func (l *latencies) take() latency {
	l.mu.Lock()
	all := l.all
	l.all = nil
	l.mu.Unlock()
	if len(all) == 0 {
		return latency{}
	}
	slices.Sort(all)
	at := func(quantile float64) time.Duration { return all[int(quantile*float64(len(all)-1))] }
	return latency{len(all), at(0.5), at(0.99)}
}

// pause waits, but not beyond the end of ctx.
func (r *run) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// ends remembers how the server's ends of the healthy connections ended, by the clients' addresses.
type ends struct {
	mu  sync.Mutex
	all map[string]error
}

func (e *ends) watch(client net.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.all == nil {
		e.all = map[string]error{}
	}
	e.all[client.String()] = nil
}

func (e *ends) forget(client net.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.all, client.String())
}

// failed is the server's, before it closes its end: the client cannot have noticed anything yet.
func (e *ends) failed(client net.Addr, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, watched := e.all[client.String()]; watched {
		e.all[client.String()] = err
	}
}

func (e *ends) end(client net.Addr) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.all[client.String()]
}
