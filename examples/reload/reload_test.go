package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// files keeps a certificate and its key where a server looks for them.
type files struct{ cert, key string }

// renew writes what root issues now; the names of the files stay. It returns the serial number.
func (f files) renew(t *testing.T, root *testpki.Authority) string {
	t.Helper()
	cert := root.Issue(t, "server.example", testpki.EKU(x509.ExtKeyUsageServerAuth))
	certFile, keyFile := testpki.Files(t, cert)
	// The key first: for a moment the two do not belong together.
	require.NoError(t, os.Rename(keyFile, f.key))
	require.NoError(t, os.Rename(certFile, f.cert))
	return cert.Leaf.SerialNumber.String()
}

// ask connects once and returns what the server says.
func ask(ctx context.Context, address string, opts *sslstream.ClientOptions) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	s := sslstream.New(conn)
	defer s.Close()
	if err := s.AuthenticateAsClient(ctx, opts); err != nil {
		return "", err
	}
	s.SetReadTimeout(5 * time.Second)
	return bufio.NewReader(s).ReadString('\n')
}

// TestReload renews the certificate again and again while clients connect: none of them fails, and who connects after a
// reload is shown the new certificate, with a full handshake.
func TestReload(t *testing.T) {
	root := testpki.Root(t, "Root")
	dir := t.TempDir()
	f := files{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	f.renew(t, root)
	certificate, err := newCertificate(f.cert, f.key)
	require.NoError(t, err)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, listener, certificate) }()
	address := listener.Addr().String()
	opts := &sslstream.ClientOptions{
		TargetHost:             "server.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(root)},
	}

	var clients sync.WaitGroup
	var asked atomic.Int64
	load, stop := context.WithCancel(t.Context())
	for range 4 {
		clients.Go(func() {
			for load.Err() == nil {
				_, err := ask(t.Context(), address, opts)
				if !assert.NoError(t, err) {
					return
				}
				asked.Add(1)
			}
		})
	}
	for range 5 {
		for before := asked.Load(); asked.Load() < before+10 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		serial := f.renew(t, root)
		changed, err := certificate.reload(false)
		require.NoError(t, err)
		require.True(t, changed)
		fresh := opts.Clone()
		for _, resumed := range []bool{false, true} {
			said, err := ask(t.Context(), address, fresh)
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprintf("certificate %s, resumed %v\n", serial, resumed), said)
		}
	}
	stop()
	clients.Wait()

	// A session from before a renewal is not resumed: its ticket names a certificate that is gone.
	said, err := ask(t.Context(), address, opts)
	require.NoError(t, err)
	serial := f.renew(t, root)
	_, err = certificate.reload(false)
	require.NoError(t, err)
	again, err := ask(t.Context(), address, opts)
	require.NoError(t, err)
	assert.NotEqual(t, said, again)
	assert.Equal(t, fmt.Sprintf("certificate %s, resumed false\n", serial), again)

	cancel()
	assert.NoError(t, <-served)
}

// TestReloadKeepsWhatWorks has files that cannot be used.
func TestReloadKeepsWhatWorks(t *testing.T) {
	root := testpki.Root(t, "Root")
	dir := t.TempDir()
	f := files{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	_, err := newCertificate(f.cert, f.key)
	require.Error(t, err, "nothing to begin with")
	f.renew(t, root)
	certificate, err := newCertificate(f.cert, f.key)
	require.NoError(t, err)
	before := certificate.current.Load()

	changed, err := certificate.reload(false)
	require.NoError(t, err)
	assert.False(t, changed, "nothing has changed")

	other := files{filepath.Join(dir, "other.pem"), f.key}
	other.renew(t, root) // a new key, the certificate is still the old one
	_, err = certificate.reload(false)
	require.Error(t, err)
	assert.Same(t, before, certificate.current.Load())

	require.NoError(t, os.Rename(other.cert, f.cert))
	changed, err = certificate.reload(false)
	require.NoError(t, err, "both are there now")
	assert.True(t, changed)
}

// TestWatch reloads by the clock and by the signal.
func TestWatch(t *testing.T) {
	root := testpki.Root(t, "Root")
	dir := t.TempDir()
	f := files{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	f.renew(t, root)
	certificate, err := newCertificate(f.cert, f.key)
	require.NoError(t, err)
	for _, tc := range []struct {
		name  string
		every time.Duration
	}{{"clock", time.Millisecond}, {"signal", time.Hour}} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			hangup, done := make(chan os.Signal, 1), make(chan struct{})
			go func() {
				defer close(done)
				certificate.watch(ctx, tc.every, hangup, t.Logf)
			}()
			serial := f.renew(t, root)
			if tc.every == time.Hour {
				hangup <- os.Interrupt
			}
			assert.Eventually(t, func() bool { return certificate.current.Load().Leaf.SerialNumber.String() == serial }, 10*time.Second, time.Millisecond)
			cancel()
			<-done
		})
	}
}
