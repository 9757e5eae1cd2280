package testpki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ocsp"
)

// OCSP has the certificate name these responders.
func OCSP(urls ...string) Option {
	return Template(func(c *x509.Certificate) { c.OCSPServer = urls })
}

// CRL has the certificate name these distribution points.
func CRL(urls ...string) Option {
	return Template(func(c *x509.Certificate) { c.CRLDistributionPoints = urls })
}

// IssuerURL has the certificate say where its issuer's is.
func IssuerURL(urls ...string) Option {
	return Template(func(c *x509.Certificate) { c.IssuingCertificateURL = urls })
}

// MustStaple has the certificate promise that it is stapled (RFC 7633).
func MustStaple() Option {
	return Extension(pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}})
}

// Extension adds an extension.
func Extension(e pkix.Extension) Option {
	return Template(func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, e) })
}

// Services are what an authority offers over HTTP: an OCSP responder, a CRL, its certificate. They do what is right unless a
// field says otherwise; fields are set before use. Services are an http.Handler, and an http.RoundTripper that
// needs no network.
type Services struct {
	Authority *Authority
	Base      string // of the URLs, without a slash at the end

	// OCSP and CRL change what is about to be signed.
	OCSP func(*Response)
	CRL  func(*List)
	// Instead answers instead; kind is "ocsp", "crl" or "issuer". It returns false to have it answered as ever.
	Instead func(kind string, w http.ResponseWriter, r *http.Request) bool
	// Issuer is what is served as the authority's certificate; nil: that, as DER.
	Issuer []byte
	// Lifetime is from thisUpdate, now, to nextUpdate; zero: an hour.
	Lifetime time.Duration

	t       testing.TB
	mu      sync.Mutex
	revoked map[string]x509.RevocationListEntry
	unknown map[string]bool
	asked   map[string]int
}

var services atomic.Int64

// Serve makes an authority's services, at a host of their own.
func (a *Authority) Serve(t testing.TB) *Services {
	return &Services{
		Authority: a, Base: fmt.Sprintf("http://ca%d.example", services.Add(1)), t: t,
		revoked: map[string]x509.RevocationListEntry{}, unknown: map[string]bool{}, asked: map[string]int{},
	}
}

// OCSPURL, CRLURL and IssuerURL are where the services are.
func (s *Services) OCSPURL() string   { return s.Base + "/ocsp" }
func (s *Services) CRLURL() string    { return s.Base + "/crl" }
func (s *Services) IssuerURL() string { return s.Base + "/issuer" }

// Revoke revokes a certificate, a minute ago.
func (s *Services) Revoke(c *x509.Certificate, reason int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked[c.SerialNumber.String()] = x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now().Add(-time.Minute), ReasonCode: reason}
}

// Forget has the responder not know a certificate.
func (s *Services) Forget(c *x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unknown[c.SerialNumber.String()] = true
}

// Asked is how often there was a request of a kind: "ocsp", "crl", "issuer", or "GET ocsp" and "POST ocsp".
func (s *Services) Asked(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[kind]
}

// Requests is how often there was any.
func (s *Services) Requests() int { return s.Asked("ocsp") + s.Asked("crl") + s.Asked("issuer") }

// Client is an HTTP client that reaches these services, and no others.
func Client(all ...*Services) *http.Client {
	return &http.Client{Transport: network(all)}
}

type network []*Services

func (n network) RoundTrip(r *http.Request) (*http.Response, error) {
	for _, s := range n {
		if u, err := url.Parse(s.Base); err == nil && u.Host == r.URL.Host {
			return s.RoundTrip(r)
		}
	}
	return nil, fmt.Errorf("nobody is at %s", r.URL.Host)
}

// RoundTrip answers without a network.
func (s *Services) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if r.Body != nil {
		defer r.Body.Close()
	}
	s.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	response := w.Result()
	response.Request = r
	return response, nil
}

func (s *Services) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/")
	kind, rest, _ := strings.Cut(path, "/")
	s.mu.Lock()
	s.asked[kind]++
	s.asked[r.Method+" "+kind]++
	s.mu.Unlock()
	if s.Instead != nil && s.Instead(kind, w, r) {
		return
	}
	switch kind {
	case "issuer":
		if s.Issuer != nil {
			w.Write(s.Issuer)
			return
		}
		w.Write(s.Authority.Certificate.Raw)
	case "crl":
		w.Write(s.List())
	case "ocsp":
		var request []byte
		if r.Method == http.MethodGet {
			escaped, _ := url.QueryUnescape(rest)
			request, _ = base64.StdEncoding.DecodeString(escaped)
		} else {
			request, _ = io.ReadAll(r.Body)
		}
		asked, err := ocsp.ParseRequest(request)
		if err != nil {
			http.Error(w, "no OCSP request: "+err.Error(), http.StatusBadRequest)
			return
		}
		w.Write(s.respond(asked.SerialNumber, asked.HashAlgorithm))
	default:
		http.NotFound(w, r)
	}
}

// Staple is what the responder says about a certificate.
func (s *Services) Staple(c *x509.Certificate) []byte { return s.respond(c.SerialNumber, crypto.SHA1) }

func (s *Services) lifetime() time.Duration {
	if s.Lifetime == 0 {
		return time.Hour
	}
	return s.Lifetime
}

func (s *Services) respond(serial *big.Int, hash crypto.Hash) []byte {
	now := time.Now()
	single := Single{Issuer: s.Authority.Certificate, Hash: hash, Serial: serial, ThisUpdate: now, NextUpdate: now.Add(s.lifetime())}
	s.mu.Lock()
	if entry, ok := s.revoked[serial.String()]; ok {
		single.Status, single.RevokedAt, single.Reason = ocsp.Revoked, entry.RevocationTime, entry.ReasonCode
	} else if s.unknown[serial.String()] {
		single.Status = ocsp.Unknown
	}
	s.mu.Unlock()
	response := &Response{Singles: []Single{single}, Responder: s.Authority.Certificate, Key: s.Authority.Key, ProducedAt: now}
	if s.OCSP != nil {
		s.OCSP(response)
	}
	return response.Sign(s.t)
}

// List is a CRL before it is signed.
type List struct {
	x509.RevocationList
	Issuer *x509.Certificate // as whom it is signed
	Key    crypto.Signer
}

// List is the authority's CRL.
func (s *Services) List() []byte {
	now := time.Now()
	list := &List{Issuer: s.Authority.Certificate, Key: s.Authority.Key}
	list.Number, list.ThisUpdate, list.NextUpdate = big.NewInt(now.Unix()), now, now.Add(s.lifetime())
	s.mu.Lock()
	for _, entry := range s.revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, entry)
	}
	s.mu.Unlock()
	if s.CRL != nil {
		s.CRL(list)
	}
	signer := *list.Issuer
	signer.KeyUsage |= x509.KeyUsageCRLSign // CreateRevocationList insists, the test may not
	if len(signer.SubjectKeyId) == 0 {
		signer.SubjectKeyId = []byte{1}
	}
	der, err := x509.CreateRevocationList(rand.Reader, &list.RevocationList, &signer, list.Key)
	require.NoError(s.t, err)
	return der
}
