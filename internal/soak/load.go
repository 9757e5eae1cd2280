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

// healthy makes sessions one after the other, each of which must get back what it sends.
func (r *run) healthy(number int) {
	choice := rand.New(rand.NewPCG(r.seed, uint64(number)))
	opts := r.pki.clientOptions([]sslstream.Protocols{sslstream.ProtocolTLS12, sslstream.ProtocolTLS13}[choice.IntN(2)])
	for round := 0; r.ctx.Err() == nil; round++ {
		if err := r.echo(opts, choice); err != nil {
			r.fail(fmt.Errorf("healthy stream %d, session %d: %w", number, round, err))
			return
		}
	}
}

// echo is one session: messages of random sizes, each after the other's echo, with calls that are given up in between and gone on
// with; and an end of one of several kinds.
func (r *run) echo(opts *sslstream.ClientOptions, choice *rand.Rand) error {
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		return err
	}
	s := sslstream.New(conn)
	defer r.closed(s)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.AuthenticateAsClient(ctx, opts); err != nil {
		return err
	}
	r.tallies.add("healthy sessions", 1)
	if s.ConnectionState().DidResume {
		r.tallies.add("of which resumed", 1)
	}
	data := rand.NewChaCha8([32]byte{byte(choice.Uint32())})
	for range 1 + choice.IntN(20) {
		size := []int{1, 64, 1000, 16 << 10, 16<<10 + 1, 100_000}[choice.IntN(6)]
		sent := make([]byte, size)
		data.Read(sent)
		began := time.Now()
		written := make(chan error, 1)
		go func() {
			_, err := s.WriteContext(ctx, sent)
			written <- err
		}()
		got := make([]byte, size)
		if err := r.readAll(ctx, s, got, choice.IntN(4) == 0); err != nil {
			return fmt.Errorf("reading %d bytes: %w", size, err)
		}
		if err := <-written; err != nil {
			return fmt.Errorf("writing %d bytes: %w", size, err)
		}
		if size == 64 {
			r.latency.add(time.Since(began))
		}
		if !bytes.Equal(sent, got) {
			return fmt.Errorf("the echo of %d bytes is not what was sent", size)
		}
		r.tallies.add("bytes echoed", int64(size))
		if r.ctx.Err() != nil {
			break
		}
		r.pause(time.Duration(choice.IntN(4000)) * time.Millisecond)
	}
	if choice.IntN(2) == 0 {
		if err := s.CloseWrite(); err != nil {
			return err
		}
		if _, err := s.ReadContext(ctx, make([]byte, 1)); err != io.EOF || !s.ReceivedCloseNotify() {
			return fmt.Errorf("the end is %v, orderly %v", err, s.ReceivedCloseNotify())
		}
	}
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

// latencies collects how long small messages take to come back.
type latencies struct {
	mu  sync.Mutex
	all []time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, d)
}

type sorted []time.Duration

// take returns what was collected since the last time.
func (l *latencies) take() sorted {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	slices.Sort(all)
	return all
}

func (s sorted) at(quantile float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	return s[int(quantile*float64(len(s)-1))]
}

func (s sorted) median() time.Duration { return s.at(0.5) }

// pause waits, but not beyond the end of the load.
func (r *run) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.ctx.Done():
	}
}
