package sslstream_test

import (
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"

	"github.com/sslstream/sslstream/internal/testpki"
)

// forgetful is a session cache that keeps nothing: the server sends tickets, and each handshake is a full one.
type forgetful struct{}

func (forgetful) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (forgetful) Put(string, *tls.ClientSessionState)        {}

// cutSession is a short session, of which each side's records are known.
type cutSession struct {
	version, strict int
	leave, native   bool
	direction       int // 0: what the client sends is cut
	limit           int // behind so many bytes; -1: never

	wires [2]*wire // by who writes
	sides [2]cutSide
}

type cutSide struct {
	authErr, writeErr, readErr error
	needed                     int // how much was read from the inner stream when the authentication was over
	got                        string
	notify                     bool
}

// said are the records of data that each side sends; close_notify follows.
var said = [2][]string{{"the question"}, {"the answer", "and more of it"}}

func (c *cutSession) run(t *testing.T, q *quick) {
	for i := range c.wires {
		c.wires[i] = newWire(1<<20, -1)
	}
	c.wires[c.direction].limit = c.limit
	other := c.wires[1-c.direction]
	c.wires[c.direction].onCut = func() { other.change(func() { other.ended, other.gone = true, true }) }
	var sides sync.WaitGroup
	for i := range c.sides {
		sides.Go(func() {
			none := func() *faults { return &faults{rand: rand.New(rand.NewPCG(0, 0))} }
			end := newFaulty(c.wires[1-i], c.wires[i], none(), none())
			var opts []sslstream.Option
			if c.leave {
				opts = append(opts, sslstream.LeaveInnerOpen())
			}
			s := sslstream.New(end.inner(c.native), opts...)
			side := &c.sides[i]
			defer end.Close()
			defer s.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if i == 0 {
				side.authErr = s.AuthenticateAsClient(ctx, q.client[c.version][c.strict])
			} else {
				side.authErr = s.AuthenticateAsServer(ctx, q.server[c.strict])
			}
			c.wires[1-i].change(func() { side.needed = c.wires[1-i].read })
			if side.authErr != nil {
				return
			}
			say := func() {
				for _, record := range said[i] {
					if side.writeErr == nil {
						_, side.writeErr = io.WriteString(s, record)
					}
				}
			}
			hear := func(n int) {
				buf := make([]byte, 100)
				for side.readErr == nil && len(side.got) < n {
					var k int
					k, side.readErr = s.Read(buf)
					side.got += string(buf[:k])
				}
			}
			if i == 0 {
				say()
				hear(1 << 20)
			} else {
				hear(len(said[0][0]))
				say()
			}
			if side.writeErr == nil {
				side.writeErr = s.CloseWrite()
			}
			hear(1 << 20)
			if side.readErr == io.EOF || side.readErr == io.ErrUnexpectedEOF {
				_, again := s.Read(make([]byte, 1))
				assert.Equal(t, side.readErr, again)
			}
			side.notify = s.ReceivedCloseNotify()
		})
	}
	sides.Wait()
}

// recordEnds returns where the records of b end.
func recordEnds(b []byte) (ends []int) {
	for at := 0; at < len(b); {
		at += 5 + int(b[at+3])<<8 + int(b[at+4])
		ends = append(ends, at)
	}
	return ends
}

// TestCutAtEveryByte ends the connection behind each byte of a session, in either direction, and looks at what both sides
// make of it.
func TestCutAtEveryByte(t *testing.T) {
	q := newQuick(t, forgetful{})
	for version, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				whole := &cutSession{version: version, leave: true, native: true, limit: -1}
				whole.run(t, q)
				for i, side := range whole.sides {
					require.NoError(t, side.authErr)
					require.NoError(t, side.writeErr)
					require.Equal(t, io.EOF, side.readErr)
					require.Equal(t, strings.Join(said[1-i], ""), side.got)
				}
				for direction := range 2 {
					total := len(whole.wires[direction].sent)
					ends := recordEnds(whole.wires[direction].sent)
					require.Equal(t, total, ends[len(ends)-1])
					boundary := map[int]bool{0: true}
					for _, end := range ends {
						boundary[end] = true
					}
					for k := 0; k <= total && !t.Failed(); k++ {
						if (testing.Short() || raceDetector) && !boundary[k] && k%5 != 0 {
							continue // slow, and there is nothing else to be seen
						}
						for variant := range 8 {
							if !boundary[k] && variant != k%8 {
								continue // at one place in a record it is as at the next
							}
							c := &cutSession{version: version, strict: variant & 1, leave: variant&2 != 0, native: variant&4 != 0, direction: direction, limit: k}
							c.run(t, q)
							c.check(t, whole, ends, boundary[k])
						}
					}
				}
			})
		})
	}
}

func (c *cutSession) check(t *testing.T, whole *cutSession, ends []int, boundary bool) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("cut behind byte %d of direction %d, which has records up to %v; strict %d, leave %v, deadlines %v",
				c.limit, c.direction, ends, c.strict, c.leave, c.native)
		}
	}()
	require.Equal(t, c.limit, len(c.wires[c.direction].sent), "sessions are all of one length")
	total := ends[len(ends)-1]
	for i, side := range c.sides {
		if side.authErr != nil {
			ae := authenticationError(t, side.authErr)
			assert.True(t, ae.Transport)
			assert.True(t, is(side.authErr, errCut, io.ErrUnexpectedEOF), "%v", side.authErr)
			continue
		}
		assert.True(t, side.writeErr == nil || i == c.direction && is(side.writeErr, errCut), "%v", side.writeErr)
		want := io.EOF
		if c.strict == 1 && !side.notify {
			want = io.ErrUnexpectedEOF
		}
		if i == c.direction {
			assert.Equal(t, want, side.readErr)
			continue
		}
		if !boundary {
			want = io.ErrUnexpectedEOF
		}
		assert.Equal(t, want, side.readErr)
		assert.Equal(t, c.limit == total, side.notify)
		got := ""
		for j, record := range said[c.direction] {
			if ends[len(ends)-1-len(said[c.direction])+j] <= c.limit {
				got += record
			}
		}
		assert.Equal(t, got, side.got)
	}
	receiver := c.sides[1-c.direction]
	needed := whole.sides[1-c.direction].needed
	assert.Equal(t, c.limit < needed, receiver.authErr != nil, "%d bytes are needed: %v", needed, receiver.authErr)
	if receiver.authErr != nil {
		assert.ErrorIs(t, receiver.authErr, io.ErrUnexpectedEOF)
	}
}
