package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var errHiccup = errors.New("a fault that passes")

// pieces is an inner stream's reading side: data, in pieces and with faults that schedule says.
type pieces struct {
	data     []byte
	schedule []byte
	at       int // how much of data was read
	asked    int // the most that was asked for
	empty    int // reads of nothing in a row
}

func (p *pieces) Read(b []byte) (int, error) {
	p.asked = max(p.asked, len(b))
	op := byte(255)
	if len(p.schedule) > 0 {
		op, p.schedule = p.schedule[0], p.schedule[1:]
	}
	n := len(b)
	switch {
	case op < 10 && p.empty < maxEmptyReads-1:
		p.empty++
		return 0, nil
	case op < 20:
		return 0, errHiccup
	case op < 200:
		n = int(op) - 19
	case op < 250:
		n = (int(op) - 199) * 1000
	}
	p.empty = 0
	n = copy(b[:min(n, len(b))], p.data[p.at:])
	p.at += n
	switch {
	case n == 0:
		return 0, io.EOF
	case op%8 == 1:
		return n, errHiccup
	case op%8 == 2 && p.at == len(p.data):
		return n, io.EOF
	}
	return n, nil
}

// recordsOf returns where the records of data end; the last may be past its end.
func recordsOf(data []byte) (ends []int) {
	for at := 0; at < len(data); {
		if len(data)-at < recordHeader {
			return append(ends, at+recordHeader) // as far as anybody can tell
		}
		at += recordHeader + bodyLen(data[at:])
		ends = append(ends, at)
	}
	return ends
}

// FuzzReader has any bytes in any pieces: what the reader hands over equals what inner gave and ends at the latest where a
// record does, and an exact one reads no byte further than that.
func FuzzReader(f *testing.F) {
	head := func(n int) []byte { return []byte{23, 3, 3, byte(n >> 8), byte(n)} }
	// more bytes follow data: the engine is slow with large inputs.
	f.Add([]byte(nil), uint16(0), []byte(nil), []byte(nil), byte(0))
	f.Add(append(head(1), 7), uint16(0), []byte{20, 20}, []byte{0}, byte(1))
	f.Add(append(append(head(3), 1, 2, 3), head(0)...), uint16(0), []byte{0, 10, 100, 1, 21, 22}, []byte{200, 3}, byte(2))
	f.Add(append(append(append(head(2), 1, 2), head(300)...), "plain"...), uint16(400), []byte{255, 25, 30, 210}, []byte{255, 100, 1}, byte(3))
	f.Add(head(16384), uint16(16384+100), []byte{255}, []byte{255}, byte(0))
	f.Add(head(16384), uint16(60000), []byte{255, 230, 255}, []byte{255}, byte(2))
	f.Add([]byte{23, 3, 3, 255, 255, 1, 2, 3}, uint16(7), []byte{255}, []byte{255}, byte(4))
	f.Fuzz(func(t *testing.T, data []byte, more uint16, schedule, sizes []byte, mode byte) {
		data = append(data[:len(data):len(data)], bytes.Repeat([]byte{0, 7, 23}, int(more)/3)...)
		exact, native := mode&1 != 0, mode&2 != 0
		inner := &pieces{data: data, schedule: schedule}
		r := &reader{exact: exact, inner: inner}
		if native {
			r.limits.use(func(time.Time) error { return nil }, true)
		}
		defer r.release()
		ends := recordsOf(data)
		got, buf := 0, make([]byte, 1<<16)
		for range 2*len(data) + 2*len(schedule) + 10 {
			p := buf[:40_000]
			if len(sizes) > 0 {
				p = buf[:1+int(sizes[0])*int(sizes[0])]
				sizes = sizes[1:]
			}
			r.dry = r.ready() // then a whole record is there
			n, err := r.read(p)
			if n < 0 || n > len(p) || n > 0 && err != nil || r.dry && err != nil {
				t.Fatalf("%d bytes, %v, dry %v", n, err, r.dry)
			}
			r.dry = false
			end := len(data)
			if len(ends) > 0 {
				end = ends[0]
			}
			if got+n > end {
				t.Fatalf("%d bytes at %d, past the record's end at %d", n, got, end)
			}
			if !bytes.HasPrefix(data[got:], p[:n]) {
				t.Fatalf("other bytes at %d", got)
			}
			got += n
			if exact && n > 0 && inner.at > end {
				t.Fatalf("read up to %d, past the record's end at %d", inner.at, end)
			}
			if len(ends) > 0 && got == ends[0] {
				ends = ends[1:]
				require.False(t, r.record.inside())
			} else if n > 0 {
				require.True(t, r.record.inside())
			}
			if err == io.EOF {
				require.Equal(t, len(data), got, "all of it was handed over")
				require.Nil(t, r.ahead.slab, "an empty buffer holds no memory")
				_, err = r.read(p)
				require.Equal(t, io.EOF, err, "again")
				return
			}
			if err != nil && err != errHiccup {
				t.Fatal(err)
			}
		}
		t.Fatal("it does not end")
	})
}

// TestReaderIsExact asks for much at once: an exact reader must not take it.
func TestReaderIsExact(t *testing.T) {
	data := append([]byte{23, 3, 3, 0, 3, 1, 2, 3}, "plain text"...)
	for _, native := range []bool{false, true} {
		inner := &pieces{data: data}
		r := &reader{exact: true, inner: inner}
		if native {
			r.limits.use(func(time.Time) error { return nil }, true)
		}
		got, buf := []byte(nil), make([]byte, 100)
		for len(got) < 8 {
			n, err := r.read(buf)
			require.NoError(t, err)
			got = append(got, buf[:n]...)
		}
		assert.Equal(t, 8, inner.at)
		assert.Equal(t, data[:8], got)
	}
}

// TestWrongCounts has an inner stream whose Read and Write count wrongly.
func TestWrongCounts(t *testing.T) {
	for _, native := range []bool{false, true} {
		for _, exact := range []bool{false, true} {
			for _, wrong := range []func(int) int{
				func(int) int { return -1 },
				func(n int) int { return n + 1 },
				func(int) int { return 1 << 30 },
				func(int) int { return -1 << 30 },
			} {
				// Between records, where crypto/tls's memory is read into, and inside one.
				for _, begun := range [][]byte{nil, {23, 3, 3, 0, 100, 1}} {
					first := true
					r := &reader{exact: exact, inner: readFunc(func(p []byte) (int, error) {
						if first && begun != nil {
							first = false
							return copy(p, begun), nil
						}
						return wrong(len(p)), nil
					})}
					if native {
						r.limits.use(func(time.Time) error { return nil }, true)
					}
					var err error
					for range 10 {
						var n int
						if n, err = r.read(make([]byte, 1000)); err != nil {
							assert.Zero(t, n)
							break
						}
					}
					assert.Equal(t, errInvalidRead, err)
					r.release()
				}
				w := &writer{inner: writeFunc(func(p []byte) (int, error) { return wrong(len(p)), nil })}
				if native {
					w.limits.use(func(time.Time) error { return nil }, true)
				}
				n, err := w.write([]byte("hello"))
				require.NoError(t, err)
				require.Equal(t, 5, n)
				assert.Equal(t, errInvalidWrite, w.send(false))
				assert.Equal(t, errInvalidWrite, w.send(false), "for ever: nobody knows what was taken")
				w.release()
			}
		}
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

type writeFunc func([]byte) (int, error)

func (f writeFunc) Write(p []byte) (int, error) { return f(p) }

// TestShortWrite has an inner stream that takes less than it is given, and says nothing of it.
func TestShortWrite(t *testing.T) {
	for _, native := range []bool{false, true} {
		var got []byte
		w := &writer{inner: writeFunc(func(p []byte) (int, error) {
			n := min(len(p), 2)
			got = append(got, p[:n]...)
			return n, nil
		})}
		if native {
			w.limits.use(func(time.Time) error { return nil }, true)
		}
		w.write([]byte("hello"))
		assert.Equal(t, io.ErrShortWrite, w.send(false))
		assert.Equal(t, io.ErrShortWrite, w.send(false))
		assert.NoError(t, w.send(false), "it goes on where it stopped")
		assert.Equal(t, "hello", string(got))
	}
}

// TestEmptyReads has an inner stream that gives nothing, and no error.
func TestEmptyReads(t *testing.T) {
	for _, native := range []bool{false, true} {
		reads := 0
		r := &reader{inner: readFunc(func([]byte) (int, error) { reads++; return 0, nil })}
		if native {
			r.limits.use(func(time.Time) error { return nil }, true)
		}
		_, err := r.read(make([]byte, 10))
		assert.Equal(t, io.ErrNoProgress, err)
		assert.Equal(t, 100, reads)
		_, err = r.read(make([]byte, 10))
		assert.Equal(t, io.ErrNoProgress, err, "it can be tried again")
		assert.Equal(t, 200, reads)
	}
}

// TestReleaseWhileSending lets go of a queue that inner is still taking.
func TestReleaseWhileSending(t *testing.T) {
	noBuffers(t)
	for _, err := range []error{nil, errHiccup} {
		entered, leave := make(chan struct{}), make(chan struct{})
		w := &writer{inner: writeFunc(func(p []byte) (int, error) {
			close(entered)
			<-leave
			if err != nil {
				return 0, err
			}
			return len(p), nil
		})}
		w.write([]byte("hello"))
		w.kick(nil)
		<-entered
		w.release()
		close(leave)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			w.mu.Lock()
			defer w.mu.Unlock()
			for w.sending {
				if w.waitLocked() != nil {
					return
				}
			}
		}()
		<-ended
		assert.Zero(t, BuffersInUse())
	}
}

// noBuffers waits for what tests before this one have begun in the background.
func noBuffers(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return BuffersInUse() == 0 }, 10*time.Second, time.Millisecond)
}

// TestAbandonedReadIsDelivered ends calls by their context while inner is being read.
func TestAbandonedReadIsDelivered(t *testing.T) {
	noBuffers(t)
	feed, entered := make(chan string), make(chan struct{}, 1)
	r := &reader{inner: readFunc(func(p []byte) (int, error) {
		entered <- struct{}{}
		return copy(p, <-feed), nil
	})}
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		require.NoError(t, r.limits.begin(ctx, 0))
		go func() {
			<-entered // a call whose context ended before would not read at all
			cancel()
		}()
		_, err := r.read(make([]byte, 10))
		require.ErrorIs(t, err, context.Canceled)
		r.limits.end()
		assert.Equal(t, 1, BuffersInUse(), "the one that inner is reading into")
		feed <- "\x17\x03\x03\x00\x02ab"
		var got []byte
		for len(got) < 7 {
			p := make([]byte, 10)
			n, err := r.read(p)
			require.NoError(t, err)
			got = append(got, p[:n]...)
		}
		assert.Equal(t, "ab", string(got[5:]))
		assert.Zero(t, BuffersInUse())
	}
}
