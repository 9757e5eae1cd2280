package sslstream

import (
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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

func TestDownloadsAreForgotten(t *testing.T) {
	var s issuerStore
	for i := range 3 * maxKnownIssuers {
		s.store(issuerSource{url: fmt.Sprint(i)}, issuerDownload{until: time.Now().Add(time.Hour)})
	}
	assert.Len(t, s.known, maxKnownIssuers)
	s.known = nil
	s.store(issuerSource{url: "fresh"}, issuerDownload{until: time.Now().Add(time.Hour)})
	for i := range maxKnownIssuers {
		s.store(issuerSource{url: fmt.Sprint(i)}, issuerDownload{until: time.Now().Add(-time.Hour)})
	}
	assert.Contains(t, s.known, issuerSource{url: "fresh"}, "what has run out is forgotten first")
}
