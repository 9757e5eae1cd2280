package sslstream

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream/internal/fetch"
	"github.com/sslstream/sslstream/internal/testpki"
)

// TestIssuersByOpenSSL reads a certs-only message that OpenSSL made.
func TestIssuersByOpenSSL(t *testing.T) {
	message, err := os.ReadFile("testdata/issuers.p7c")
	require.NoError(t, err)
	issuers, err := parseIssuers(message)
	require.NoError(t, err)
	var names []string
	for _, c := range issuers {
		names = append(names, c.Subject.CommonName)
	}
	assert.ElementsMatch(t, []string{"First of two", "Second of two"}, names)
}

// FuzzIssuers reads what a server may send for an issuer's certificate.
func FuzzIssuers(f *testing.F) {
	c := testpki.Root(f, "Root").Certificate
	f.Add(c.Raw)
	message, err := os.ReadFile("testdata/issuers.p7c")
	require.NoError(f, err)
	f.Add(message)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: c.Raw}))
	f.Add([]byte("0\x80\x06\t*\x86H\x86\xf7\r\x01\a\x02\xa0\x80"))
	f.Fuzz(func(t *testing.T, body []byte) {
		issuers, err := parseIssuers(body)
		if err != nil {
			assert.Nil(t, issuers)
			return
		}
		require.NotEmpty(t, issuers)
		assert.LessOrEqual(t, len(issuers), maxIssuers)
		for _, c := range issuers {
			assert.NotEmpty(t, c.Raw)
		}
	})
}

func TestOneLine(t *testing.T) {
	assert.Equal(t, "a; b", oneLine("a\nb"))
	assert.Equal(t, "a\uFFFD[31mb", oneLine("a\x1b[31mb"), "a peer chooses what its certificates say")
	assert.LessOrEqual(t, len(oneLine(strings.Repeat("ä", 10_000))), maxDetail+len("…"))
	assert.True(t, utf8.ValidString(oneLine("x"+strings.Repeat("ä", 10_000))))
}

// TestIssuersThatAreTooMuch serves what would take long to check or much room to keep.
func TestIssuersThatAreTooMuch(t *testing.T) {
	ca := testpki.Root(t, "CA")
	template := func() *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(5), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	}
	n := new(big.Int).Lsh(big.NewInt(1), 8192)
	long, err := x509.CreateCertificate(rand.Reader, template(), ca.Certificate, &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537}, ca.Key)
	require.NoError(t, err)
	_, err = parseIssuers(long)
	assert.ErrorContains(t, err, "an RSA key of 8193 bits, and 8192 are possible")

	large := template()
	large.DNSNames = slices.Repeat([]string{"a"}, 22_000)
	der, err := x509.CreateCertificate(rand.Reader, large, ca.Certificate, ca.Key.Public(), ca.Key)
	require.NoError(t, err)
	_, err = parseIssuers(der)
	assert.ErrorContains(t, err, "65536 are possible")
}

// TestIssuersBudget has one validation spend its requests, which says nothing of the server.
func TestIssuersBudget(t *testing.T) {
	ca := testpki.Root(t, "CA")
	services := ca.Serve(t)
	leaf := ca.Issue(t, "leaf.example").Leaf
	s := issuerStore{memory: fetch.NewMemory(issuerRoom)}
	client := testpki.Client(services)
	var budget fetch.Budget
	for n := range fetch.MaxRequests {
		_, err := s.get(t.Context(), client, &budget, fmt.Sprint(services.IssuerURL(), "?", n), leaf)
		require.NoError(t, err)
	}
	_, err := s.get(t.Context(), client, &budget, services.IssuerURL(), leaf)
	assert.ErrorIs(t, err, fetch.ErrBudget)
	issuers, err := s.get(t.Context(), client, &fetch.Budget{}, services.IssuerURL(), leaf)
	require.NoError(t, err)
	assert.Equal(t, []*x509.Certificate{ca.Certificate}, issuers)
}

// TestIssuersAreForgotten remembers more than there is room for.
func TestIssuersAreForgotten(t *testing.T) {
	s := issuerStore{memory: fetch.NewMemory(issuerRoom)}
	issuers := []*x509.Certificate{testpki.Root(t, "CA").Certificate}
	room := issuerRoom / (issuerWeight * len(issuers[0].Raw))
	source := func(i int) issuerSource { return issuerSource{url: fmt.Sprint(i)} }
	for i := range 2 * room {
		s.store(source(i), issuerDownload{issuers: issuers, until: time.Now().Add(time.Hour)})
		_, ok := s.remembered(source(0))
		require.True(t, ok, "what is asked for again and again stays")
	}
	kept := 0
	for i := range 2 * room {
		if _, ok := s.remembered(source(i)); ok {
			kept++
		}
	}
	assert.InDelta(t, room, kept, float64(room)/2)
	assert.Less(t, kept, room)
}
