package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/sslstream/sslstream"
)

// certificate is what two files say, as far as they last made sense.
type certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
	seen              [2]os.FileInfo // of the files, when they were last read; only for watch
}

// same reports whether a file is as it was. A file that was replaced may have its predecessor's size and time.
func same(before, now os.FileInfo) bool {
	return before != nil && os.SameFile(before, now) && before.Size() == now.Size() && before.ModTime().Equal(now.ModTime())
}

func newCertificate(certFile, keyFile string) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile}
	_, err := c.reload(true)
	return c, err
}

// pick shows the newest certificate to the next client. It is called once in each handshake, and waits for nothing.
func (c *certificate) pick(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

// reload reads the files if they have changed, or in any case. What cannot be used leaves everything as it was: files are
// often replaced one after the other, and for a moment do not belong together.
func (c *certificate) reload(anyway bool) (changed bool, err error) {
	var now [2]os.FileInfo
	for i, name := range []string{c.certFile, c.keyFile} {
		if now[i], err = os.Stat(name); err != nil {
			return false, fmt.Errorf("reload: %w", err)
		}
	}
	if !anyway && same(c.seen[0], now[0]) && same(c.seen[1], now[1]) {
		return false, nil
	}
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return false, fmt.Errorf("reload: %s with %s: %w", c.certFile, c.keyFile, err)
	}
	c.seen = now
	c.current.Store(&cert)
	return true, nil
}

// watch reloads when the files change, and on every signal, until ctx ends.
func (c *certificate) watch(ctx context.Context, every time.Duration, hangup <-chan os.Signal, logf func(string, ...any)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for anyway := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			anyway = true
		case <-tick.C:
			anyway = false
		}
		changed, err := c.reload(anyway)
		switch {
		case err != nil:
			logf("%v; going on with the certificate there is", err)
		case changed:
			logf("reload: certificate %v from now on", c.current.Load().Leaf.SerialNumber)
		}
	}
}
