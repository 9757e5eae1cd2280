package sslstream_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// quick are options for many short sessions, by the index of the version and RequireCloseNotify, in bubbles of
// testing/synctest, each of which begins at the same time.
type quick struct {
	client [2][2]*sslstream.ClientOptions
	server [2]*sslstream.ServerOptions
}

func newQuick(t *testing.T, cache tls.ClientSessionCache) *quick {
	t.Helper()
	skipInFIPSMode(t, "X25519, nor Ed25519 certificates in TLS")
	oneThread(t)
	q := &quick{}
	testpki.Bubble(t, func(t *testing.T) {
		root := testpki.Root(t, "Test Root", testpki.Ed25519(t))
		own := root.Issue(t, serverName, testpki.Ed25519(t)) // whose signatures have one length
		for strict := range 2 {
			for i, v := range versions {
				q.client[i][strict] = &sslstream.ClientOptions{
					TargetHost: serverName, EnabledProtocols: v.protocol, RequireCloseNotify: strict == 1, SessionCache: cache,
					TLSConfig:              &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}, DynamicRecordSizingDisabled: i == 0},
					CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(root)},
				}
			}
			q.server[strict] = &sslstream.ServerOptions{ServerCertificate: &own, RequireCloseNotify: strict == 1}
		}
	})
	return q
}

// oneThread lets goroutines run one at a time for the rest of the test: the race detector, which misses nothing by it, can
// crash where timers of one bubble fire on two threads (golang.org/issue/78156).
func oneThread(t *testing.T) {
	if raceDetector {
		threads := runtime.GOMAXPROCS(1)
		t.Cleanup(func() { runtime.GOMAXPROCS(threads) })
	}
}

// faultRun is one session over an inner stream with faults, all of which follow from its seed.
type faultRun struct {
	*testing.T
	rand    *rand.Rand
	version int
	strict  int
	leave   bool
	native  [2]bool // deadlines on the inner streams
	rough   bool    // faults in the handshake too
	cut     bool    // the connection ends somewhere
	abrupt  bool    // the client ends with Close
	ends    [2]*faulty
	streams [2]*sslstream.Stream
	totals  [2]int // what each side means to write
	from    [2]int // where in pattern it begins
	sides   [2]faultSide
}

// faultSide is the model of what a side did.
type faultSide struct {
	accepted  int  // what its writes said
	delivered int  // what its reads gave
	finished  bool // all of it was sent, the caller was told
	eof       error
}

// pattern is what is written, from somewhere on.
var pattern = payload(2 << 20)

// TestFaults runs sessions over inner streams that fail in every way there is, against a model that knows each byte.
func TestFaults(t *testing.T) {
	q := newQuick(t, nil)
	runs := 2000
	if testing.Short() || raceDetector {
		runs = 400
	}
	for seed := range runs {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) { newFaultRun(t, uint64(seed)).run(q) })
		})
		if t.Failed() {
			break // the first says enough
		}
	}
}

func newFaultRun(t *testing.T, seed uint64) *faultRun {
	chance := rand.New(rand.NewPCG(seed, 0))
	one := func(n int) bool { return chance.IntN(n) == 0 }
	r := &faultRun{T: t, rand: chance, version: chance.IntN(2), strict: chance.IntN(2), leave: one(2), native: [2]bool{one(2), one(2)},
		rough: one(6), cut: one(4), abrupt: one(4)}
	sizes := []int{0, 1, 300, 20_000, 100_000}
	if one(40) {
		sizes = append(sizes, 1_000_000)
	}
	var wires [2]*wire
	for i := range wires {
		r.totals[i] = chance.IntN(1 + sizes[chance.IntN(len(sizes))])
		wires[i] = newWire(r.totals[i]/20+20+chance.IntN(1<<(1+chance.IntN(18))), -1)
		r.from[i] = chance.IntN(len(pattern) - r.totals[i])
	}
	if r.cut {
		i := chance.IntN(2)
		wires[i].limit = chance.IntN(1 + 1500 + r.totals[i])
		other := wires[1-i]
		wires[i].onCut = func() { other.change(func() { other.ended, other.gone = true, true }) }
	}
	for i := range r.ends {
		in, out := wires[1-i], wires[i]
		of := func() *faults {
			f := &faults{rand: rand.New(rand.NewPCG(seed, chance.Uint64())), fragment: one(2), empty: one(3), withEOF: one(2), stalls: one(3)}
			if r.rough {
				f.hiccups.Store(one(2))
				f.short.Store(one(2))
			}
			return f
		}
		r.ends[i] = newFaulty(in, out, of(), of())
		var opts []sslstream.Option
		if r.leave {
			opts = append(opts, sslstream.LeaveInnerOpen())
		}
		r.streams[i] = sslstream.New(r.ends[i].inner(r.native[i]), opts...)
	}
	return r
}

func (r *faultRun) run(q *quick) {
	defer func() {
		if r.Failed() {
			r.Logf("%+v", *r)
		}
	}()
	if ok := r.handshake(q); !ok {
		return
	}
	var calls sync.WaitGroup
	for i := range r.streams {
		for _, f := range []*faults{r.ends[i].onRead, r.ends[i].onWrite} {
			f.hiccups.Store(r.rand.IntN(2) == 0) // a session ticket may be on its way meanwhile
			f.short.Store(r.rand.IntN(2) == 0)
		}
		seed := r.rand.Uint64()
		calls.Go(func() { r.write(i, rand.New(rand.NewPCG(seed, 1))) })
		calls.Go(func() { r.read(i, rand.New(rand.NewPCG(seed, 2))) })
	}
	calls.Wait()
	for i, side := range r.sides {
		peer := r.sides[1-i]
		if peer.finished && !r.cut && !(r.abrupt && i == 0) {
			assert.Equal(r, peer.accepted, side.delivered, "side %d got all", i)
			if !r.abrupt { // Close makes no promise about close_notify
				assert.Equal(r, io.EOF, side.eof)
				assert.True(r, r.streams[i].ReceivedCloseNotify())
			}
		}
		assert.LessOrEqual(r, side.delivered, peer.accepted)
	}
	if r.leave && !r.cut && !r.abrupt {
		r.unwrap()
	}
	r.close()
}

// handshake reports whether both sides have a session.
func (r *faultRun) handshake(q *quick) bool {
	ctx, cancel := context.WithTimeout(r.Context(), time.Hour)
	defer cancel()
	var errs [2]error
	var calls sync.WaitGroup
	for i, s := range r.streams {
		calls.Go(func() {
			if i == 0 {
				errs[i] = s.AuthenticateAsClient(ctx, q.client[r.version][r.strict])
			} else {
				errs[i] = s.AuthenticateAsServer(ctx, q.server[r.strict])
			}
			if errs[i] != nil {
				assert.Zero(r, r.ends[i].closed.Load(), "a failed handshake closes nothing")
				r.ends[i].Close() // as a program does
			}
		})
	}
	calls.Wait()
	ok := true
	for i, err := range errs {
		if err == nil {
			continue
		}
		ok = false
		var ae *sslstream.AuthenticationError
		if assert.ErrorAs(r, err, &ae) {
			assert.True(r, ae.Transport, "%v", err)
			assert.True(r, is(err, errHiccup, errCut, io.ErrShortWrite, io.ErrUnexpectedEOF), "side %d: %v", i, err)
		}
		assert.True(r, r.rough || r.cut, "nothing ended it: %v", err)
		_, again := r.streams[i].Read(make([]byte, 1))
		assert.Equal(r, err, again)
	}
	if !ok {
		r.close()
	}
	return ok
}

func is(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// passes reports whether err is one after which a call can be made again.
func passes(err error) bool {
	return is(err, errHiccup, io.ErrShortWrite, os.ErrDeadlineExceeded, context.DeadlineExceeded, context.Canceled)
}

// bounded makes a call under one of the limits that there are, or none. at is SetReadDeadline or SetWriteDeadline.
func bounded(chance *rand.Rand, at func(time.Time) error, timeout func(time.Duration), call func(context.Context) error) error {
	d := time.Duration(chance.IntN(15)) * time.Millisecond
	switch chance.IntN(10) {
	case 0:
		at(time.Now().Add(d))
		defer at(time.Time{})
	case 1:
		timeout(d + 1)
		defer timeout(0)
	case 2:
		ctx, cancel := context.WithTimeout(context.Background(), d)
		defer cancel()
		return call(ctx)
	case 3: // a deadline that is moved meanwhile
		moved := make(chan struct{})
		move := time.AfterFunc(d, func() { at(time.Now()); close(moved) })
		defer func() {
			if !move.Stop() {
				<-moved
			}
			at(time.Time{})
		}()
	case 4: // a context that is cancelled meanwhile
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		defer time.AfterFunc(d, cancel).Stop()
		return call(ctx)
	}
	return call(context.Background())
}

func (r *faultRun) write(i int, chance *rand.Rand) {
	s, side := r.streams[i], &r.sides[i]
	final := func(err error) bool {
		if err == nil || passes(err) {
			return false
		}
		assert.True(r, is(err, errCut) && r.cut || is(err, net.ErrClosed), "side %d writes: %v", i, err)
		return true
	}
	// again makes a call until it succeeds.
	again := func(call func() error) (ok bool) {
		for {
			err := call()
			if err == nil {
				return true
			}
			if final(err) {
				return false
			}
		}
	}
	for side.accepted < r.totals[i] {
		size := 1 + chance.IntN(min(r.totals[i]-side.accepted, r.totals[i]/50+1<<(1+chance.IntN(20))))
		p := pattern[r.from[i]+side.accepted:][:size]
		kept := bytes.Clone(p[:min(size, 100)])
		n := 0
		err := bounded(chance, s.SetWriteDeadline, s.SetWriteTimeout, func(ctx context.Context) (err error) {
			n, err = s.WriteContext(ctx, p)
			return err
		})
		assert.Equal(r, kept, p[:len(kept)])
		if n < 0 || n > size || err == nil && n < size {
			r.Errorf("Write of %d returned %d, %v", size, n, err)
			return
		}
		side.accepted += n
		if final(err) {
			return
		}
		if err != nil && chance.IntN(2) == 0 && !again(s.Flush) {
			return
		}
	}
	if i == 0 && r.abrupt {
		err := s.Close()
		side.finished = err == nil
		if err != nil {
			assert.ErrorContains(r, err, "could be sent")
			assert.True(r, passes(err) || r.cut && is(err, errCut), "%v", err)
		}
		assert.Equal(r, r.leave, r.ends[i].closed.Load() == 0)
		r.ends[i].Close()
		return
	}
	side.finished = again(s.CloseWrite)
	if side.finished {
		_, err := s.Write([]byte("x"))
		assert.Equal(r, sslstream.ErrWriteClosed, err)
	}
}

func (r *faultRun) read(i int, chance *rand.Rand) {
	s, side, peer := r.streams[i], &r.sides[i], 1-i
	buf := make([]byte, r.totals[peer]/50+1<<(1+chance.IntN(18)))
	for {
		p := buf[:1+chance.IntN(len(buf))]
		n := 0
		err := bounded(chance, s.SetReadDeadline, s.SetReadTimeout, func(ctx context.Context) (err error) {
			n, err = s.ReadContext(ctx, p)
			return err
		})
		if n < 0 || n > len(p) || side.delivered+n > r.totals[peer] ||
			!bytes.Equal(p[:n], pattern[r.from[peer]+side.delivered:][:n]) {
			r.Errorf("side %d: other bytes than were written, at %d of %d, after %d", i, n, len(p), side.delivered)
			return
		}
		side.delivered += n
		switch {
		case err == nil || passes(err):
			continue
		case err == io.EOF:
			assert.True(r, s.ReceivedCloseNotify() || r.strict == 0)
			assert.True(r, s.ReceivedCloseNotify() || r.cut || r.abrupt)
		case err == io.ErrUnexpectedEOF:
			assert.True(r, r.cut || r.abrupt)
			assert.False(r, s.ReceivedCloseNotify())
		default:
			assert.True(r, r.abrupt && i == 0 && is(err, net.ErrClosed), "side %d reads: %v", i, err)
		}
		side.eof = err
		return
	}
}

// unwrap gives the inner streams back and has plain text follow on them.
func (r *faultRun) unwrap() {
	var calls sync.WaitGroup
	const text = "in plain text"
	for i, s := range r.streams {
		calls.Go(func() {
			for {
				inner, err := s.Unwrap(context.Background())
				if err == nil {
					assert.Equal(r, s.Inner(), inner)
					break
				}
				if !assert.True(r, passes(err), "%v", err) {
					return
				}
			}
			end := r.ends[i]
			assert.True(r, end.readBy.at.IsZero() && end.writeBy.at.IsZero(), "deadlines left")
			*end.onRead, *end.onWrite = faults{rand: end.onRead.rand}, faults{rand: end.onWrite.rand}
			written := make(chan error, 1)
			go func() { _, err := io.WriteString(end, text); written <- err }()
			buf := make([]byte, len(text))
			_, err := io.ReadFull(end, buf)
			assert.NoError(r, err)
			assert.Equal(r, text, string(buf))
			assert.NoError(r, <-written)
		})
	}
	calls.Wait()
}

func (r *faultRun) close() {
	for i, s := range r.streams {
		began := time.Now()
		err := s.Close()
		assert.LessOrEqual(r, time.Since(began), 6*time.Second)
		assert.True(r, err == nil || passes(err) || is(err, errCut), "%v", err)
		assert.NoError(r, s.Close(), "again")
		end := r.ends[i]
		if r.leave {
			assert.True(r, end.readBy.at.IsZero() && end.writeBy.at.IsZero(), "deadlines left")
		}
		_, err = s.Read(make([]byte, 1))
		assert.Error(r, err)
		_, err = s.Write(make([]byte, 1))
		assert.Error(r, err)
	}
	for i, end := range r.ends {
		end.Close()
		assert.Zero(r, end.overlaps.Load(), "side %d: the inner stream was called twice at once", i)
	}
}
