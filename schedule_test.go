package sslstream_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	mrand "math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"

	"github.com/sslstream/sslstream/internal/testpki"
)

// schedule is a pair of streams on which calls are made one after another, and what must come of them.
type schedule struct {
	*testing.T
	streams [2]*sslstream.Stream
	ends    [2]*faulty
	written [2][]byte // accepted of each side
	got     [2]int    // read of what each side wrote
	ended   [2]bool   // CloseWrite was called
	closed  [2]bool
	due     [2]bool // an expired deadline is set for writes
}

// FuzzSchedule has a pair of streams under any schedule of calls, over inner streams that take little at a time.
func FuzzSchedule(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{3, 0, 10, 1, 200, 2, 100, 0x80, 255, 0x81, 255, 4, 0, 5, 0, 6, 0})
	f.Add([]byte{2, 0x10, 250, 0x10, 250, 0x14, 0, 0x91, 255, 0x16, 0, 0x92, 250, 0x15, 0})
	f.Add([]byte{1, 0x17, 5, 0x10, 255, 0x18, 0, 0x11, 255, 0x84, 3, 0x83, 9, 0x85, 1, 0x86, 0, 0x87, 0})
	f.Add([]byte{0, 0, 250, 9, 1, 0x80, 250, 0x89, 1, 0x81, 250, 1, 250, 5, 0, 0x85, 0, 0x81, 250, 1, 250, 6, 0})
	f.Add(bytes.Repeat([]byte{7, 250}, 20))
	var q *quick
	cache := forgetful{}
	f.Fuzz(func(t *testing.T, ops []byte) {
		if q == nil {
			q = newQuick(t, cache)
		}
		if len(ops) > 200 {
			ops = ops[:200]
		}
		oneThread(t)
		testpki.Bubble(t, func(t *testing.T) { runSchedule(t, q, ops) })
	})
}

func runSchedule(t *testing.T, q *quick, ops []byte) {
	mode := byte(0)
	if len(ops) > 0 {
		mode, ops = ops[0], ops[1:]
	}
	s := &schedule{T: t}
	wires := [2]*wire{newWire(1<<14+1<<(mode>>4), -1), newWire(1<<12+1<<(mode>>4), -1)}
	var opts []sslstream.Option
	if mode&1 != 0 {
		opts = append(opts, sslstream.LeaveInnerOpen())
	}
	for i := range s.ends {
		of := func() *faults {
			return &faults{rand: mrand.New(mrand.NewPCG(uint64(mode), uint64(i))), fragment: mode&8 != 0}
		}
		s.ends[i] = newFaulty(wires[1-i], wires[i], of(), of())
		s.streams[i] = sslstream.New(s.ends[i].inner(mode&2 != 0), opts...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.streams[1].AuthenticateAsServer(ctx, q.server[1]) }()
	require.NoError(t, s.streams[0].AuthenticateAsClient(ctx, q.client[mode>>2&1][1]))
	require.NoError(t, <-done)
	for ; len(ops) >= 2; ops = ops[2:] {
		i := int(ops[0] >> 7)
		s.step(i, ops[0]&0x7f, int(ops[1]))
	}
	s.drain()
	for i, end := range s.ends {
		s.streams[i].Close()
		end.Close()
		require.Zero(t, end.overlaps.Load())
	}
}

// A wait is what a call may take: nothing else moves while it is made.
const aWait = time.Millisecond

func (s *schedule) step(i int, op byte, arg int) {
	stream := s.streams[i]
	size := 1 + arg*arg*arg/50 // up to 300 KiB
	short, cancel := context.WithTimeout(context.Background(), aWait)
	defer cancel()
	switch op % 12 {
	case 0, 1, 10: // three ways of writing for a while
		p := make([]byte, size)
		rand.Read(p)
		var n int
		var err error
		if op%12 == 10 {
			stream.SetWriteTimeout(aWait)
			n, err = stream.Write(p)
			stream.SetWriteTimeout(0)
		} else {
			n, err = stream.WriteContext(short, p)
		}
		require.True(s, n >= 0 && n <= size && (n == size || err != nil), "%d of %d, %v", n, size, err)
		s.written[i] = append(s.written[i], p[:n]...)
		switch {
		case s.closed[i]:
			require.ErrorIs(s, err, net.ErrClosed)
			require.Zero(s, n)
		case s.ended[i]:
			require.Equal(s, sslstream.ErrWriteClosed, err)
			require.Zero(s, n)
		case s.due[i]:
			require.ErrorIs(s, err, os.ErrDeadlineExceeded)
			require.Zero(s, n)
		default:
			require.True(s, err == nil || timedOut(err), "%v", err)
		}
	case 2, 3, 11:
		s.read(i, size, short)
	case 4:
		stream.SetWriteTimeout(aWait)
		err := stream.Flush()
		stream.SetWriteTimeout(0)
		require.True(s, err == nil || timedOut(err) || s.closed[i] && err == net.ErrClosed, "%v", err)
	case 5:
		stream.SetWriteTimeout(aWait)
		err := stream.CloseWrite()
		stream.SetWriteTimeout(0)
		require.True(s, err == nil || timedOut(err) || s.closed[i] && err == net.ErrClosed, "%v", err)
		// With a deadline that is past it does not begin.
		s.ended[i] = s.ended[i] || !stream.CanWrite() && !s.closed[i]
	case 6:
		if arg < 200 { // closing ends most of what there is to try
			return
		}
		s.close(i)
	case 7:
		s.due[i] = arg%2 == 0
		at := time.Time{}
		if s.due[i] {
			at = time.Now().Add(-time.Second)
		}
		err := stream.SetWriteDeadline(at)
		require.Equal(s, s.closed[i], err != nil)
		s.due[i] = s.due[i] && err == nil
	case 8:
		at := time.Time{}
		if arg%2 == 0 {
			at = time.Now().Add(-time.Second)
		}
		err := stream.SetReadDeadline(at)
		require.Equal(s, s.closed[i], err != nil)
		if err == nil && arg%2 == 0 {
			_, err = stream.Read(make([]byte, 10))
			require.ErrorIs(s, err, os.ErrDeadlineExceeded)
			require.NoError(s, stream.SetReadDeadline(time.Time{}))
		}
	case 9: // a deadline that is moved while a Read waits, or that another call sets
		time.AfterFunc(aWait/2, func() { stream.SetReadDeadline(time.Now()) })
		s.read(i, size, short)
		time.Sleep(aWait)
		stream.SetReadDeadline(time.Time{})
	}
}

func timedOut(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// read reads once, and reports whether there may be more.
func (s *schedule) read(i, size int, ctx context.Context) bool {
	p := make([]byte, size)
	n, err := s.streams[i].ReadContext(ctx, p)
	from := s.written[1-i]
	require.True(s, n >= 0 && n <= size && s.got[1-i]+n <= len(from), "%d bytes, %v", n, err)
	require.True(s, bytes.Equal(from[s.got[1-i]:][:n], p[:n]), "other bytes at %d", s.got[1-i])
	s.got[1-i] += n
	switch {
	case err == nil:
		require.NotZero(s, n)
		return true
	case timedOut(err):
		return false
	case s.closed[i]:
		require.ErrorIs(s, err, net.ErrClosed)
	case err == io.EOF:
		require.True(s, s.ended[1-i] || s.closed[1-i])
		require.True(s, s.streams[i].ReceivedCloseNotify())
		require.Equal(s, len(from), s.got[1-i], "all of it, before close_notify")
	default: // the peer could not say all it had to
		require.Equal(s, io.ErrUnexpectedEOF, err)
		require.True(s, s.closed[1-i])
	}
	return false
}

func (s *schedule) close(i int) {
	began, first := time.Now(), !s.closed[i]
	err := s.streams[i].Close()
	require.LessOrEqual(s, time.Since(began), 6*time.Second)
	require.True(s, first || err == nil)
	if err != nil {
		require.ErrorContains(s, err, "could be sent")
	}
	s.closed[i], s.due[i] = true, false
	if first {
		s.ends[i].Close() // with LeaveInnerOpen it is still open
	}
}

// drain lifts all limits, and reads until everything that was accepted has arrived.
func (s *schedule) drain() {
	for i, stream := range s.streams {
		if !s.closed[i] {
			require.NoError(s, stream.SetDeadline(time.Time{}))
		}
	}
	for i, from := range s.streams {
		to := s.streams[1-i]
		if s.closed[0] || s.closed[1] {
			continue // then it is a prefix, which is known by now
		}
		flushed := make(chan error, 1)
		go func() { flushed <- from.CloseWrite() }()
		for !to.ReceivedCloseNotify() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			if !s.drained(1-i, ctx) {
				cancel()
				break
			}
			cancel()
		}
		require.NoError(s, <-flushed)
		require.True(s, to.ReceivedCloseNotify())
		require.Equal(s, len(s.written[i]), s.got[i])
	}
}

// drained is read for a peer whose CloseWrite is under way.
func (s *schedule) drained(i int, ctx context.Context) bool {
	s.ended[1-i] = true
	return s.read(i, 1<<20, ctx)
}
