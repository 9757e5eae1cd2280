// Package testpki makes certificates and connections for tests, in the process and at the moment of the test: no files,
// and nothing that expires.
package testpki

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"
)

// Authority is a certificate with its key that can issue others.
type Authority struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
	Issuer      *Authority // nil for a root
}

// Option changes a certificate before it is signed.
type Option func(*request)

type request struct {
	template *x509.Certificate
	key      crypto.Signer
	mangle   bool
	sha1     bool
}

// Root makes a self-signed authority.
func Root(t testing.TB, name string, opts ...Option) *Authority {
	t.Helper()
	return issue(t, nil, name, append([]Option{CA()}, opts...))
}

// Intermediate makes an authority below a.
func (a *Authority) Intermediate(t testing.TB, name string, opts ...Option) *Authority {
	t.Helper()
	return issue(t, a, name, append([]Option{CA()}, opts...))
}

// Issue makes an end certificate and returns it with its key and the intermediates up to, but without, the root.
// It is for name, as a DNS name, unless an option gives it other names.
func (a *Authority) Issue(t testing.TB, name string, opts ...Option) tls.Certificate {
	t.Helper()
	end := issue(t, a, name, append([]Option{DNS(name)}, opts...))
	return end.TLS()
}

// TLS is the authority's own certificate for use by a client or server, with the intermediates above it.
func (a *Authority) TLS() tls.Certificate {
	c := tls.Certificate{PrivateKey: a.Key, Leaf: a.Certificate}
	for i := a; i != nil && (i.Issuer != nil || i == a); i = i.Issuer {
		c.Certificate = append(c.Certificate, i.Certificate.Raw)
	}
	return c
}

// SelfSigned makes an end certificate that nobody issued.
func SelfSigned(t testing.TB, name string, opts ...Option) tls.Certificate {
	t.Helper()
	return issue(t, nil, name, append([]Option{DNS(name)}, opts...)).TLS()
}

// Pool is a trust store of the authorities.
func Pool(authorities ...*Authority) *x509.CertPool {
	p := x509.NewCertPool()
	for _, a := range authorities {
		p.AddCert(a.Certificate)
	}
	return p
}

func issue(t testing.TB, issuer *Authority, name string, opts []Option) *Authority {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	require.NoError(t, err)
	now := time.Now()
	r := &request{template: &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{"sslstream tests"}},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}}
	for _, o := range opts {
		o(r)
	}
	if r.key == nil {
		r.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
	}
	self := &Authority{Key: r.key, Issuer: issuer}
	parent, signer := r.template, r.key
	if issuer != nil {
		parent, signer = issuer.Certificate, issuer.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, r.template, parent, r.key.Public(), signer)
	require.NoError(t, err)
	if r.sha1 {
		der = resignSHA1(t, der, signer)
	}
	if r.mangle {
		der[len(der)-1] ^= 1 // the last octet of the signature
	}
	self.Certificate, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return self
}

// Template changes anything.
func Template(f func(*x509.Certificate)) Option { return func(r *request) { f(r.template) } }

// CA makes it an authority.
func CA() Option {
	return Template(func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid = true, true
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	})
}

// DNS gives it these names, and no others.
func DNS(names ...string) Option {
	return Template(func(c *x509.Certificate) { c.DNSNames = names })
}

// IP gives it these addresses, besides its names.
func IP(addresses ...string) Option {
	return Template(func(c *x509.Certificate) {
		for _, a := range addresses {
			c.IPAddresses = append(c.IPAddresses, net.ParseIP(a))
		}
	})
}

// EKU limits what it may be used for.
func EKU(usages ...x509.ExtKeyUsage) Option {
	return Template(func(c *x509.Certificate) { c.ExtKeyUsage = usages })
}

// Valid sets when it is valid, relative to now.
func Valid(from, to time.Duration) Option {
	return Template(func(c *x509.Certificate) {
		now := time.Now()
		c.NotBefore, c.NotAfter = now.Add(from), now.Add(to)
	})
}

// Expired lets it have been valid until an hour ago.
func Expired() Option { return Valid(-48*time.Hour, -time.Hour) }

// NotYet lets it be valid from an hour from now.
func NotYet() Option { return Valid(time.Hour, 48*time.Hour) }

// BadSignature breaks the signature.
func BadSignature() Option { return func(r *request) { r.mangle = true } }

// Key uses this key.
func Key(key crypto.Signer) Option { return func(r *request) { r.key = key } }

var rsaKeys sync.Map // by size, because they are slow to make

// RSA uses an RSA key of that many bits, always the same one.
func RSA(bits int) Option {
	once, _ := rsaKeys.LoadOrStore(bits, sync.OnceValue(func() *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			panic(err)
		}
		return key
	}))
	return func(r *request) { r.key = once.(func() *rsa.PrivateKey)() }
}

// ECDSA uses a new key on that curve.
func ECDSA(t testing.TB, curve elliptic.Curve) Option {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	return Key(key)
}

// Ed25519 uses a new Ed25519 key.
func Ed25519(t testing.TB) Option {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return Key(key)
}

// Files writes the certificate with its intermediates, and its key, as PEM, for peers that read files.
func Files(t testing.TB, c tls.Certificate) (certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	var chain []byte
	for _, der := range c.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	require.NoError(t, os.WriteFile(certFile, chain, 0o600))
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	return certFile, keyFile
}

// CAFile writes the authorities as PEM.
func CAFile(t testing.TB, authorities ...*Authority) string {
	t.Helper()
	var all []byte
	for _, a := range authorities {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate.Raw})...)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, all, 0o600))
	return file
}

// SHA1 has it signed with SHA-1, which crypto/x509 refuses to do. The issuer's key must be an ECDSA key.
func SHA1() Option { return func(r *request) { r.sha1 = true } }

// signed is a certificate or a CRL.
type signed struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

// resignSHA1 signs the certificate again with ECDSA and SHA-1.
func resignSHA1(t testing.TB, der []byte, key crypto.Signer) []byte {
	return resign(t, der, key, true, func(fields [][]byte) [][]byte {
		return slices.Replace(fields, 2, 3, weakAlgorithm(t)) // after version and serial number
	})
}

// ResignedWithSHA1 is the CRL, signed again with ECDSA and SHA-1.
func ResignedWithSHA1(t testing.TB, crl []byte, key crypto.Signer) []byte {
	return resign(t, crl, key, true, func(fields [][]byte) [][]byte {
		return slices.Replace(fields, 1, 2, weakAlgorithm(t)) // after the version
	})
}

// Resigned is a certificate or a CRL with other fields, signed again with ECDSA and SHA-256.
func Resigned(t testing.TB, der []byte, key crypto.Signer, change func(fields [][]byte) [][]byte) []byte {
	return resign(t, der, key, false, change)
}

func weakAlgorithm(t testing.TB) []byte {
	t.Helper()
	der, err := asn1.Marshal(pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}}) // ecdsa-with-SHA1
	require.NoError(t, err)
	return der
}

func resign(t testing.TB, der []byte, key crypto.Signer, weak bool, change func([][]byte) [][]byte) []byte {
	t.Helper()
	var c signed
	_, err := asn1.Unmarshal(der, &c)
	require.NoError(t, err)
	var fields [][]byte
	for rest := c.TBS.Bytes; len(rest) > 0; {
		var field asn1.RawValue
		rest, err = asn1.Unmarshal(rest, &field)
		require.NoError(t, err)
		fields = append(fields, field.FullBytes)
	}
	tbs, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: slices.Concat(change(fields)...)})
	require.NoError(t, err)
	hash := crypto.SHA256
	if weak {
		hash = crypto.SHA1
		_, err = asn1.Unmarshal(weakAlgorithm(t), &c.Algorithm)
		require.NoError(t, err)
	}
	signature, err := key.Sign(rand.Reader, digest(hash, tbs), hash)
	require.NoError(t, err)
	der, err = asn1.Marshal(signed{
		TBS:       asn1.RawValue{FullBytes: tbs},
		Algorithm: c.Algorithm,
		Signature: asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	})
	require.NoError(t, err)
	return der
}

// ECH makes a configuration list for Encrypted Client Hello and the key that goes with it.
func ECH(t testing.TB, publicName string) (configList []byte, key tls.EncryptedClientHelloKey) {
	t.Helper()
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	require.NoError(t, err)
	const version, kem, kdf, aead = 0xfe0d, 0x0020, 0x0001, 0x0001
	var b cryptobyte.Builder
	b.AddUint16(version)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint8(1) // its number
		b.AddUint16(kem)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(private.PublicKey().Bytes()) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint16(kdf)
			b.AddUint16(aead)
		})
		b.AddUint8(0) // maximum name length
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(publicName)) })
		b.AddUint16(0) // no extensions
	})
	config := b.BytesOrPanic()
	var list cryptobyte.Builder
	list.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(config) })
	return list.BytesOrPanic(), tls.EncryptedClientHelloKey{Config: config, PrivateKey: private.Bytes(), SendAsRetry: true}
}
