package sslstream_test

import (
	"context"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sslstream/sslstream"

	"github.com/sslstream/sslstream/internal/testpki"
)

// tripwire is an inner stream that does something at one of its calls.
type tripwire struct {
	*faulty
	left *atomic.Int32 // calls until then
	trip func()
}

func (w tripwire) step() {
	if w.left.Add(-1) == 0 {
		w.trip()
	}
}

func (w tripwire) Read(p []byte) (int, error)  { w.step(); return w.faulty.Read(p) }
func (w tripwire) Write(p []byte) (int, error) { w.step(); return w.faulty.Write(p) }

// TestHandshakeCancelledAtEachStage cancels the context at each call of the inner stream in a handshake. Where the last one
// is over by then the handshake may be too.
func TestHandshakeCancelledAtEachStage(t *testing.T) {
	q := newQuick(t, forgetful{})
	for version, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				for cancelled := range 2 {
					for _, native := range []bool{false, true} {
						failed, at := 0, int32(1)
						for ; ; at++ {
							wires := [2]*wire{newWire(100, -1), newWire(100, -1)} // so that there are many
							var streams [2]*sslstream.Stream
							var ends [2]*faulty
							ctx, cancel := context.WithCancel(t.Context())
							left := new(atomic.Int32)
							left.Store(at)
							for i := range ends {
								none := func() *faults { return &faults{rand: rand.New(rand.NewPCG(0, 0))} }
								ends[i] = newFaulty(wires[1-i], wires[i], none(), none())
								var inner io.ReadWriteCloser = ends[i]
								if i == cancelled {
									inner = tripwire{ends[i], left, cancel}
								}
								if !native {
									inner = plain{inner}
								}
								streams[i] = sslstream.New(inner)
							}
							authenticate := func(ctx context.Context, i int) error {
								if i == 0 {
									return streams[i].AuthenticateAsClient(ctx, q.client[version][0])
								}
								return streams[i].AuthenticateAsServer(ctx, q.server[0])
							}
							peer := make(chan error, 1)
							go func() {
								ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
								defer cancel()
								peer <- authenticate(ctx, 1-cancelled)
							}()
							err := authenticate(ctx, cancelled)
							end := ends[cancelled]
							assert.Zero(t, end.closed.Load(), "the inner stream stays open")
							assert.True(t, end.readBy.at.IsZero() && end.writeBy.at.IsZero(), "and has no deadline left")
							if err != nil {
								failed++
								assert.ErrorIs(t, err, context.Canceled)
								assert.True(t, authenticationError(t, err).Transport)
							}
							end.Close()
							<-peer
							for i, s := range streams {
								s.Close()
								ends[i].Close()
								assert.Zero(t, ends[i].overlaps.Load())
							}
							cancel()
							if left.Load() > 0 { // it was over before
								assert.NoError(t, err)
								break
							}
						}
						assert.Greater(t, failed, 3, "of %d", at)
					}
				}
			})
		})
	}
}
