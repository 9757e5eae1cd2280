package sslstream_test

import (
	"crypto/tls"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpeer"
	"github.com/sslstream/sslstream/internal/testpki"
)

// withPeer authenticates a server of ours against a client whose records are ours too.
func withPeer(t *testing.T, opts ...sslstream.Option) (*sslstream.Stream, *testpeer.Peer) {
	t.Helper()
	f := newFixture(t)
	a, b := testpki.TCP(t)
	s := newStream(t, b, opts...)
	t.Cleanup(func() { s.Close() })
	done := make(chan error, 1)
	go func() { done <- s.AuthenticateAsServer(testContext(t), f.serverOptions()) }()
	peer := testpeer.Client(t, a, &tls.Config{ServerName: serverName, RootCAs: testpki.Pool(f.root)})
	require.NoError(t, <-done)
	return s, peer
}

func readString(t *testing.T, s *sslstream.Stream, n int) string {
	t.Helper()
	buf := make([]byte, n)
	s.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := io.ReadFull(s, buf)
	require.NoError(t, err)
	return string(buf)
}

// TestKeyUpdate has the peer demand new keys, in states in which crypto/tls alone would lose the peer's own new keys.
func TestKeyUpdate(t *testing.T) {
	t.Run("in the middle", func(t *testing.T) {
		s, peer := withPeer(t)
		require.NoError(t, peer.SendKeyUpdate(true))
		require.NoError(t, peer.Write(testpeer.ApplicationData, []byte("after")))
		assert.Equal(t, "after", readString(t, s, 5))
		kind, _, err := peer.Read()
		require.NoError(t, err)
		assert.EqualValues(t, testpeer.Handshake, kind, "the answer")
		_, err = s.Write([]byte("under new keys"))
		require.NoError(t, err)
		_, data, err := peer.Read()
		require.NoError(t, err)
		assert.Equal(t, "under new keys", string(data))
	})
	t.Run("while a Read waits", func(t *testing.T) {
		s, peer := withPeer(t)
		read := make(chan error, 1)
		go func() { _, err := s.Read(make([]byte, 1)); read <- err }()
		require.NoError(t, peer.SendKeyUpdate(true))
		kind, _, err := peer.Read() // the answer does not wait for the Read to return
		require.NoError(t, err)
		assert.EqualValues(t, testpeer.Handshake, kind)
		require.NoError(t, peer.Write(testpeer.ApplicationData, []byte("x")))
		require.NoError(t, <-read)
	})
	t.Run("after CloseWrite", func(t *testing.T) {
		s, peer := withPeer(t)
		require.NoError(t, s.CloseWrite())
		for range 3 {
			require.NoError(t, peer.SendKeyUpdate(true))
			require.NoError(t, peer.Write(testpeer.ApplicationData, []byte("after")))
			assert.Equal(t, "after", readString(t, s, 5))
		}
		kind, data, err := peer.Read()
		require.NoError(t, err)
		assert.EqualValues(t, testpeer.Alert, kind)
		assert.EqualValues(t, testpeer.CloseNotify, data[1])
		require.NoError(t, s.Close())
		_, _, err = peer.Read()
		assert.Equal(t, io.EOF, err, "nothing follows a close_notify")
	})
	t.Run("under an expired write deadline", func(t *testing.T) {
		s, peer := withPeer(t)
		s.SetWriteDeadline(time.Now().Add(-time.Second))
		for range 3 {
			require.NoError(t, peer.SendKeyUpdate(true))
			require.NoError(t, peer.Write(testpeer.ApplicationData, []byte("after")))
			assert.Equal(t, "after", readString(t, s, 5))
		}
		_, err := s.Write([]byte("x"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		s.SetWriteDeadline(time.Time{})
		_, err = s.Write([]byte("under the newest keys"))
		require.NoError(t, err)
		for range 3 {
			kind, _, err := peer.Read()
			require.NoError(t, err)
			assert.EqualValues(t, testpeer.Handshake, kind)
		}
		_, data, err := peer.Read()
		require.NoError(t, err)
		assert.Equal(t, "under the newest keys", string(data))
	})
	t.Run("the answer follows when the deadline is lifted", func(t *testing.T) {
		s, peer := withPeer(t)
		s.SetWriteDeadline(time.Now().Add(-time.Second))
		require.NoError(t, peer.SendKeyUpdate(true))
		require.NoError(t, peer.Write(testpeer.ApplicationData, []byte("after")))
		assert.Equal(t, "after", readString(t, s, 5))
		s.SetWriteDeadline(time.Time{})
		kind, _, err := peer.Read() // nobody writes or flushes
		require.NoError(t, err)
		assert.EqualValues(t, testpeer.Handshake, kind)
	})
	t.Run("while a Write is stalled", func(t *testing.T) {
		s, peer := withPeer(t)
		want := payload(16 << 20)
		written := make(chan error, 1)
		go func() { _, err := s.Write(want); written <- err }()
		time.Sleep(50 * time.Millisecond) // the peer reads nothing
		require.NoError(t, peer.SendKeyUpdate(true))
		require.NoError(t, peer.Write(testpeer.ApplicationData, []byte("after")))
		assert.Equal(t, "after", readString(t, s, 5), "reading does not wait for the Write")
		var got []byte
		for len(got) < len(want) {
			kind, data, err := peer.Read()
			require.NoError(t, err)
			if kind == testpeer.ApplicationData {
				got = append(got, data...)
			}
		}
		require.NoError(t, <-written)
		assert.Equal(t, want, got)
	})
}

// TestKeyUpdateFlood has a peer that demands keys for ever and takes no answer: what it can make us keep is bounded.
func TestKeyUpdateFlood(t *testing.T) {
	s, peer := withPeer(t)
	s.SetWriteDeadline(time.Now().Add(-time.Second)) // as if the connection took nothing
	flood := make(chan error, 1)
	go func() {
		for {
			if err := peer.SendKeyUpdate(true); err != nil {
				flood <- err
				return
			}
			if err := peer.Write(testpeer.ApplicationData, []byte("x")); err != nil {
				flood <- err
				return
			}
		}
	}()
	read := 0
	var err error
	for err == nil {
		_, err = s.Read(make([]byte, 1))
		read++
		require.Less(t, read, 100_000)
	}
	assert.ErrorContains(t, err, "does not read them")
	require.NoError(t, s.Close())
	s.Inner().Close()
	<-flood
}
