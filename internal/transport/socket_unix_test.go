//go:build unix

package transport

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fullSocket is a socket without room, at which something else happens meanwhile.
type fullSocket struct{ meanwhile func() }

func (s fullSocket) Control(func(uintptr)) error           { return nil }
func (s fullSocket) Read(func(uintptr) (done bool)) error  { return nil }
func (s fullSocket) Write(func(uintptr) (done bool)) error { s.meanwhile(); return nil }

// TestAnswerAtTheEndOfAWrite has reading answer a key update at the moment at which a Write of the user's ends: its Send may
// come too early for the answer, which then must be known as one that somebody else has to send.
func TestAnswerAtTheEndOfAWrite(t *testing.T) {
	sent := make(chan []byte, 1)
	c := &Conn{}
	c.write.inner = writeFunc(func(p []byte) (int, error) { sent <- append([]byte(nil), p...); return len(p), nil })
	c.write.limits.use(func(time.Time) error { return nil }, true)
	c.write.socket = &socketWriter{raw: fullSocket{func() {
		c.EndData()
		require.NoError(t, c.Send())
	}}}
	c.BeginData(1)
	answer := []byte{typeApplicationData, 3, 3, 0, 5, 'a', 'n', 's', 'w', 'r'} // of TLS 1.3: it looks like the user's data
	n, err := c.TLS().Write(answer)
	require.NoError(t, err)
	require.Equal(t, 10, n)
	c.EndRead()
	select {
	case p := <-sent:
		assert.Equal(t, answer, p)
	case <-time.After(5 * time.Second):
		t.Error("nobody sent it")
	}
	c.write.release()
}
