package testpki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"
	cb "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"
)

// Response is an OCSP response (RFC 6960, Section 4.2.1) before it is signed, right or wrong.
type Response struct {
	Singles      []Single
	Responder    *x509.Certificate // as whom it is signed
	ByName       bool              // which is said by name, not by key
	Certificates []*x509.Certificate
	Key          crypto.Signer // an ECDSA key
	ProducedAt   time.Time
	Extensions   []pkix.Extension
	WithSHA1     bool
	Mangle       bool // the signature
	Status       ocsp.ResponseStatus
}

// Single is what a response says of one certificate.
type Single struct {
	Issuer     *x509.Certificate
	Hash       crypto.Hash // by which it is named; zero: SHA-1
	Serial     *big.Int
	Status     int // ocsp.Good, ocsp.Revoked or ocsp.Unknown
	RevokedAt  time.Time
	Reason     int
	ThisUpdate time.Time
	NextUpdate time.Time // zero: none
	Extensions []pkix.Extension

	// Instead of the issuer's own name and key.
	NameOf, KeyOf *x509.Certificate
}

var hashOIDs = map[crypto.Hash]asn1.ObjectIdentifier{
	crypto.SHA1:   {1, 3, 14, 3, 2, 26},
	crypto.SHA256: {2, 16, 840, 1, 101, 3, 4, 2, 1},
	crypto.SHA384: {2, 16, 840, 1, 101, 3, 4, 2, 2},
	crypto.SHA512: {2, 16, 840, 1, 101, 3, 4, 2, 3},
	crypto.MD5:    {1, 2, 840, 113549, 2, 5},
}

// Sign is the response in DER.
func (r *Response) Sign(t testing.TB) []byte {
	t.Helper()
	if r.Status != ocsp.Success {
		return []byte{0x30, 3, 0x0a, 1, byte(r.Status)}
	}
	var data cryptobyte.Builder
	data.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
		if r.ByName {
			b.AddASN1(cb.Tag(1).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(r.Responder.RawSubject) })
		} else {
			b.AddASN1(cb.Tag(2).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1OctetString(digest(crypto.SHA1, keyBits(t, r.Responder)))
			})
		}
		b.AddASN1GeneralizedTime(r.ProducedAt.UTC())
		b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, s := range r.Singles {
				s.add(t, b)
			}
		})
		addExtensions(b, 1, r.Extensions)
	})
	signed := data.BytesOrPanic()

	hash, algorithm := crypto.SHA256, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	if r.WithSHA1 {
		hash, algorithm = crypto.SHA1, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}
	}
	require.IsType(t, &ecdsa.PublicKey{}, r.Key.Public())
	signature, err := r.Key.Sign(rand.Reader, digest(hash, signed), hash)
	require.NoError(t, err)
	if r.Mangle {
		signature[len(signature)-1] ^= 1
	}
	var basic cryptobyte.Builder
	basic.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(signed)
		b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(algorithm) })
		b.AddASN1BitString(signature)
		if len(r.Certificates) > 0 {
			b.AddASN1(cb.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
					for _, c := range r.Certificates {
						b.AddBytes(c.Raw)
					}
				})
			})
		}
	})
	var all cryptobyte.Builder
	all.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(0)
		b.AddASN1(cb.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1})
				b.AddASN1OctetString(basic.BytesOrPanic())
			})
		})
	})
	return all.BytesOrPanic()
}

func (s *Single) add(t testing.TB, b *cryptobyte.Builder) {
	hash, name, key := s.Hash, s.NameOf, s.KeyOf
	if hash == 0 {
		hash = crypto.SHA1
	}
	if name == nil {
		name = s.Issuer
	}
	if key == nil {
		key = s.Issuer
	}
	b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(hashOIDs[hash]) })
			b.AddASN1OctetString(digest(hash, name.RawSubject))
			b.AddASN1OctetString(digest(hash, keyBits(t, key)))
			b.AddASN1BigInt(s.Serial)
		})
		switch s.Status {
		case ocsp.Good:
			b.AddASN1(cb.Tag(0).ContextSpecific(), func(*cryptobyte.Builder) {})
		case ocsp.Revoked:
			b.AddASN1(cb.Tag(1).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1GeneralizedTime(s.RevokedAt.UTC())
				b.AddASN1(cb.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(s.Reason)) })
			})
		default:
			b.AddASN1(cb.Tag(2).ContextSpecific(), func(*cryptobyte.Builder) {})
		}
		b.AddASN1GeneralizedTime(s.ThisUpdate.UTC())
		if !s.NextUpdate.IsZero() {
			b.AddASN1(cb.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(s.NextUpdate.UTC()) })
		}
		addExtensions(b, 1, s.Extensions)
	})
}

func addExtensions(b *cryptobyte.Builder, tag uint8, extensions []pkix.Extension) {
	if len(extensions) == 0 {
		return
	}
	der, err := asn1.Marshal(extensions)
	if err != nil {
		panic(err)
	}
	b.AddASN1(cb.Tag(tag).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(der) })
}

func digest(h crypto.Hash, data []byte) []byte {
	hash := h.New()
	hash.Write(data)
	return hash.Sum(nil)
}

// keyBits is a certificate's public key as CertID and ResponderID hash it.
func keyBits(t testing.TB, c *x509.Certificate) []byte {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	_, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info)
	require.NoError(t, err)
	return info.PublicKey.RightAlign()
}
