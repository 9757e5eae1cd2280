// Package pkcs11_test uses keys that never leave their token, by way of PKCS#11. It is a module of its own so that the root module
// does not depend on cgo.
package pkcs11_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ThalesGroup/crypto11"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

const install = "apt-get install softhsm2"

// token makes an empty SoftHSM token and opens it.
func token(t *testing.T) *crypto11.Context {
	t.Helper()
	missing := t.Skipf
	if os.Getenv("INTEROP") == "all" {
		missing = t.Fatalf
	}
	util, err := exec.LookPath("softhsm2-util")
	if err != nil {
		missing("softhsm2-util is not installed: %s", install)
	}
	library := ""
	for _, l := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(l); err == nil {
			library = l
		}
	}
	if library == "" {
		missing("libsofthsm2.so is not installed: %s", install)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "softhsm2.conf")
	require.NoError(t, os.WriteFile(config, []byte("directories.tokendir = "+dir+"\nlog.level = ERROR\n"), 0o600))
	t.Setenv("SOFTHSM2_CONF", config)
	out, err := exec.Command(util, "--init-token", "--free", "--label", "token", "--so-pin", "1234", "--pin", "1234").CombinedOutput()
	require.NoError(t, err, "%s", out)
	c, err := crypto11.Configure(&crypto11.Config{Path: library, TokenLabel: "token", Pin: "1234"})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// onlySigner hides what else a key can do.
type onlySigner struct{ crypto.Signer }

// TestKeysInToken has servers and clients prove themselves by keys that only the token has.
func TestKeysInToken(t *testing.T) {
	c := token(t)
	id := func() []byte {
		b := make([]byte, 8)
		rand.Read(b)
		return b
	}
	root := testpki.Root(t, "Root")
	for _, kind := range []struct {
		name string
		key  func() (crypto.Signer, error)
	}{
		{"ECDSA", func() (crypto.Signer, error) { return c.GenerateECDSAKeyPair(id(), elliptic.P256()) }},
		{"RSA", func() (crypto.Signer, error) { return c.GenerateRSAKeyPair(id(), 2048) }},
		{"RSA, a Signer only", func() (crypto.Signer, error) {
			key, err := c.GenerateRSAKeyPair(id(), 2048)
			return onlySigner{key}, err
		}},
	} {
		serverKey, err := kind.key()
		require.NoError(t, err)
		clientKey, err := kind.key()
		require.NoError(t, err)
		server := root.Issue(t, "server.example", testpki.Key(serverKey), testpki.EKU(x509.ExtKeyUsageServerAuth))
		client := root.Issue(t, "client.example", testpki.Key(clientKey), testpki.EKU(x509.ExtKeyUsageClientAuth))
		trust := &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(root)}
		for _, version := range []sslstream.Protocols{sslstream.ProtocolTLS12, sslstream.ProtocolTLS13} {
			for _, context := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%v/context %v", kind.name, version, context), func(t *testing.T) {
					co := &sslstream.ClientOptions{TargetHost: "server.example", EnabledProtocols: version, CertificateChainPolicy: trust}
					so := &sslstream.ServerOptions{CertificateChainPolicy: trust, ClientCertificateRequired: true}
					if context {
						co.ClientCertificateContext, err = sslstream.NewCertificateContext(client, nil)
						require.NoError(t, err)
						so.ServerCertificateContext, err = sslstream.NewCertificateContext(server, nil)
						require.NoError(t, err)
					} else {
						co.ClientCertificates, so.ServerCertificate = []tls.Certificate{client}, &server
					}
					a, b := handshake(t, co, so)
					assert.Equal(t, version, a.Protocol())
					assert.True(t, a.IsMutuallyAuthenticated())
					assert.True(t, b.IsMutuallyAuthenticated())
					assert.True(t, b.RemoteCertificate().Equal(client.Leaf))
				})
			}
		}
	}
}

// handshake authenticates both ends of a pipe and sends a word each way.
func handshake(t *testing.T, co *sslstream.ClientOptions, so *sslstream.ServerOptions) (client, server *sslstream.Stream) {
	t.Helper()
	a, b := testpki.Pipe(t)
	client, server = sslstream.New(a), sslstream.New(b)
	t.Cleanup(func() {
		a.Close()
		b.Close()
		client.Close()
		server.Close()
	})
	done := make(chan error, 1)
	go func() { done <- server.AuthenticateAsServer(t.Context(), so) }()
	require.NoError(t, client.AuthenticateAsClient(t.Context(), co))
	require.NoError(t, <-done)
	for _, way := range [][2]*sslstream.Stream{{client, server}, {server, client}} {
		go io.WriteString(way[0], "word")
		way[1].SetReadTimeout(10 * time.Second)
		got := make([]byte, 4)
		_, err := io.ReadFull(way[1], got)
		require.NoError(t, err)
		require.Equal(t, "word", string(got))
	}
	return client, server
}

// refusing is a key whose token has been pulled out.
type refusing struct{ crypto.Signer }

var errGone = errors.New("the token is gone")

func (refusing) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, errGone }

// TestTokenThatFails gives its error to who asked for the handshake.
func TestTokenThatFails(t *testing.T) {
	c := token(t)
	key, err := c.GenerateECDSAKeyPair([]byte{1}, elliptic.P256())
	require.NoError(t, err)
	root := testpki.Root(t, "Root")
	server := root.Issue(t, "server.example", testpki.Key(key))
	server.PrivateKey = refusing{key}
	a, b := net.Pipe()
	s := sslstream.New(b)
	defer s.Close()
	defer b.Close()
	go func() {
		client := sslstream.New(a)
		client.AuthenticateAsClient(t.Context(), &sslstream.ClientOptions{TargetHost: "server.example", CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(root)}})
		a.Close()
		client.Close()
	}()
	err = s.AuthenticateAsServer(t.Context(), &sslstream.ServerOptions{ServerCertificate: &server})
	assert.ErrorContains(t, err, errGone.Error())
}
