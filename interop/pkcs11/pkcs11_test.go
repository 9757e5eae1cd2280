// Package pkcs11_test uses keys that never leave their token, by way of PKCS#11. It is a module of its own so that the root module
// does not depend on cgo.
package pkcs11_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ThalesGroup/crypto11"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

const install = "apt-get install softhsm2"

// limit is how long a token may take for what usually takes some milliseconds.
const limit = 60 * time.Second

// within runs what a token has a part in. No context ends a call into its library, so a token that is stuck leaves the call behind.
func within(what string, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit + 5*time.Second): // what heeds ctx says more
		return fmt.Errorf("%s: the token is stuck", what)
	}
}

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
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, util, "--init-token", "--free", "--label", "token", "--so-pin", "1234", "--pin", "1234").CombinedOutput()
	require.NoError(t, err, "%s", out)
	c, err := crypto11.Configure(&crypto11.Config{Path: library, TokenLabel: "token", Pin: "1234"})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, within("closing", func(context.Context) error { return c.Close() }))
	})
	return c
}

// recorder is a key that notes what it is to sign, and how. It hides what else a key can do.
type recorder struct {
	crypto.Signer
	mu   sync.Mutex
	opts []crypto.SignerOpts
}

func (r *recorder) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	r.mu.Lock()
	r.opts = append(r.opts, opts)
	r.mu.Unlock()
	return r.Signer.Sign(random, digest, opts)
}

// taken are the options of one handshake.
func (r *recorder) taken() (opts []crypto.SignerOpts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	opts, r.opts = r.opts, nil
	return opts
}

// decrypter is a recorder that can decrypt as well, as crypto11's RSA keys do.
type decrypter struct {
	*recorder
	crypto.Decrypter
}

func (d decrypter) Public() crypto.PublicKey { return d.recorder.Public() }

func id() []byte {
	b := make([]byte, 8)
	rand.Read(b)
	return b
}

// pss is what RFC 8446, Section 4.2.3, demands of rsa_pss_rsae_sha256: a salt as long as the hash.
func pss(t *testing.T, opts crypto.SignerOpts) {
	t.Helper()
	if o, ok := opts.(*rsa.PSSOptions); assert.True(t, ok, "%T", opts) {
		assert.Equal(t, rsa.PSSSaltLengthEqualsHash, o.SaltLength)
		assert.Equal(t, crypto.SHA256, o.Hash)
	}
}

// plain is ECDSA with SHA-256, and RSA by PKCS#1 v1.5.
func plain(t *testing.T, opts crypto.SignerOpts) {
	t.Helper()
	assert.Equal(t, crypto.SHA256, opts)
}

// TestKeysInToken has servers and clients prove themselves by keys that only the token has.
func TestKeysInToken(t *testing.T) {
	c := token(t)
	ecdsaKey := func() (crypto.Signer, error) { return c.GenerateECDSAKeyPair(id(), elliptic.P256()) }
	rsaKey := func() (crypto.Signer, error) { return c.GenerateRSAKeyPair(id(), 2048) }
	root := testpki.Root(t, "Root")
	for _, kind := range []struct {
		name         string
		key          func() (crypto.Signer, error)
		decrypts     bool
		only         []tls.SignatureScheme
		tls12, tls13 func(*testing.T, crypto.SignerOpts) // nil: no such handshake
	}{
		// The hash is the curve's, in TLS 1.2 because both ends prefer that.
		{"ECDSA", ecdsaKey, false, nil, plain, plain},
		// TLS 1.3 has RSA-PSS only; in TLS 1.2 both ends prefer it.
		{"RSA", rsaKey, true, nil, pss, pss},
		{"RSA, a Signer only", rsaKey, false, nil, pss, pss},
		{"RSA, PKCS 1 v1.5 only", rsaKey, true, []tls.SignatureScheme{tls.PKCS1WithSHA256}, plain, nil},
	} {
		issue := func(name string, usage x509.ExtKeyUsage) (tls.Certificate, *recorder) {
			var key crypto.Signer
			require.NoError(t, within("making a key", func(context.Context) (err error) {
				key, err = kind.key()
				return err
			}))
			cert := root.Issue(t, name, testpki.Key(key), testpki.EKU(usage))
			cert.SupportedSignatureAlgorithms = kind.only
			r := &recorder{Signer: key}
			cert.PrivateKey = r
			if kind.decrypts {
				cert.PrivateKey = decrypter{r, key.(crypto.Decrypter)}
			}
			return cert, r
		}
		server, serverSigned := issue("server.example", x509.ExtKeyUsageServerAuth)
		client, clientSigned := issue("client.example", x509.ExtKeyUsageClientAuth)
		trust := &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(root)}
		for _, version := range []sslstream.Protocols{sslstream.ProtocolTLS12, sslstream.ProtocolTLS13} {
			signed := kind.tls12
			if version == sslstream.ProtocolTLS13 {
				signed = kind.tls13
			}
			if signed == nil {
				continue
			}
			for _, inContext := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%v/context %v", kind.name, version, inContext), func(t *testing.T) {
					co := &sslstream.ClientOptions{TargetHost: "server.example", EnabledProtocols: version, CertificateChainPolicy: trust}
					so := &sslstream.ServerOptions{CertificateChainPolicy: trust, ClientCertificateRequired: true}
					if inContext {
						var err error
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
					for _, r := range []*recorder{serverSigned, clientSigned} {
						opts := r.taken()
						require.Len(t, opts, 1)
						signed(t, opts[0])
					}
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
	go func() {
		done <- within("the server", func(ctx context.Context) error { return server.AuthenticateAsServer(ctx, so) })
	}()
	require.NoError(t, within("the client", func(ctx context.Context) error { return client.AuthenticateAsClient(ctx, co) }))
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
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		client := sslstream.New(a)
		client.AuthenticateAsClient(ctx, &sslstream.ClientOptions{TargetHost: "server.example", CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(root)}})
		a.Close()
		client.Close()
	}()
	err = within("the server", func(ctx context.Context) error {
		return s.AuthenticateAsServer(ctx, &sslstream.ServerOptions{ServerCertificate: &server})
	})
	assert.ErrorContains(t, err, errGone.Error())
}
