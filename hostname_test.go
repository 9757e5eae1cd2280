package sslstream_test

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

func TestTargetHosts(t *testing.T) {
	f := newFixture(t)
	for _, tc := range []struct {
		name  string
		host  string
		sni   string // on the wire
		shown string // the server's TargetHostName
		san   []testpki.Option
		match bool
	}{
		{"plain", "www.example.com", "www.example.com", "www.example.com", []testpki.Option{testpki.DNS("www.example.com")}, true},
		{"upper case", "WWW.Example.com", "WWW.Example.com", "WWW.Example.com", []testpki.Option{testpki.DNS("www.example.com")}, true},
		{"wildcard", "www.example.com", "www.example.com", "www.example.com", []testpki.Option{testpki.DNS("*.example.com")}, true},
		{"wildcard is one label", "a.b.example.com", "a.b.example.com", "a.b.example.com", []testpki.Option{testpki.DNS("*.example.com")}, false},
		{"another", "www.example.org", "www.example.org", "www.example.org", []testpki.Option{testpki.DNS("www.example.com")}, false},
		{"trailing dot", "www.example.com.", "www.example.com", "www.example.com", []testpki.Option{testpki.DNS("www.example.com")}, true},
		{"trailing dots", "www.example.com...", "www.example.com", "www.example.com", []testpki.Option{testpki.DNS("www.example.com")}, true},
		{"international", "bücher.example", "xn--bcher-kva.example", "bücher.example", []testpki.Option{testpki.DNS("xn--bcher-kva.example")}, true},
		{"international, upper case", "BÜCHER.example", "xn--bcher-kva.example", "bücher.example", []testpki.Option{testpki.DNS("xn--bcher-kva.example")}, true},
		{"international, ideographic dots", "bücher。example。", "xn--bcher-kva.example", "bücher.example", []testpki.Option{testpki.DNS("xn--bcher-kva.example")}, true},
		{"sharp s", "straße.example", "xn--strae-oqa.example", "straße.example", []testpki.Option{testpki.DNS("xn--strae-oqa.example")}, true},
		{"given in punycode", "xn--bcher-kva.example", "xn--bcher-kva.example", "bücher.example", []testpki.Option{testpki.DNS("xn--bcher-kva.example")}, true},
		{"given in punycode, mixed case", "xN--bcher-kva.Example", "xN--bcher-kva.Example", "bücher.example", []testpki.Option{testpki.DNS("xn--bcher-kva.example")}, true},
		{"punycode that does not decode", "xn--a.example", "xn--a.example", "xn--a.example", []testpki.Option{testpki.DNS("xn--a.example")}, true},
		{"punycode of nothing", "www.xn--.example", "www.xn--.example", "www.xn--.example", []testpki.Option{testpki.DNS("www.xn--.example")}, true},
		{"nothing but punycode of nothing", "xn--", "xn--", "xn--", []testpki.Option{testpki.DNS("xn--")}, true},
		{"punycode of nothing at the end", "www.example.xn--", "www.example.xn--", "www.example.xn--", []testpki.Option{testpki.DNS("www.example.xn--")}, true},
		{"underscore", "my_host.example", "my_host.example", "my_host.example", []testpki.Option{testpki.DNS("my_host.example")}, true},
		{"hyphen at the end", "www-.example.com", "www-.example.com", "www-.example.com", []testpki.Option{testpki.DNS("www-.example.com")}, true},
		{"one label", "localhost", "localhost", "localhost", []testpki.Option{testpki.DNS("localhost")}, true},
		{"IPv4", "127.0.0.1", "", "", []testpki.Option{testpki.IP("127.0.0.1")}, true},
		{"IPv4, as a DNS name", "127.0.0.1", "", "", []testpki.Option{testpki.DNS("127.0.0.1")}, false},
		{"IPv4, another", "127.0.0.1", "", "", []testpki.Option{testpki.IP("127.0.0.2")}, false},
		{"IPv6", "::1", "", "", []testpki.Option{testpki.IP("::1")}, true},
		{"IPv6 in brackets", "[::1]", "", "", []testpki.Option{testpki.IP("::1")}, true},
		{"IPv6 with a zone", "fe80::1%eth0", "", "", []testpki.Option{testpki.IP("fe80::1")}, true},
		{"IPv6, written otherwise", "0:0:0:0:0:0:0:1", "", "", []testpki.Option{testpki.IP("::1")}, true},
		{"IPv4 in IPv6", "::ffff:127.0.0.1", "", "", []testpki.Option{testpki.IP("127.0.0.1")}, true},
		{"empty", "", "", "", []testpki.Option{testpki.DNS("")}, false},
		{"common name only", "server.example", "server.example", "server.example", []testpki.Option{testpki.DNS()}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cert := f.intermediate.Issue(t, "server.example", append([]testpki.Option{testpki.DNS()}, tc.san...)...)
			co := f.clientOptions()
			co.TargetHost = tc.host
			sent := "not asked"
			so := &sslstream.ServerOptions{ServerCertificateSelectionCallback: func(_ context.Context, _ *sslstream.Stream, hello sslstream.ClientHelloInfo) (*tls.Certificate, error) {
				sent = hello.Info.ServerName
				assert.Equal(t, tc.shown, hello.ServerName)
				return &cert, nil
			}}
			client, server := newStreams(t)
			err, serverErr := authenticate(t, client, server, co, so)
			assert.Equal(t, tc.sni, sent)
			assert.Equal(t, tc.host, client.TargetHostName())
			if tc.match {
				require.NoError(t, errors.Join(err, serverErr))
				assert.Equal(t, tc.shown, server.TargetHostName())
				return
			}
			assert.Equal(t, nameMismatch, authenticationError(t, err).PolicyErrors)
		})
	}
}

func TestInvalidTargetHosts(t *testing.T) {
	for host, says := range map[string]string{
		"https://example.com":                   "is a URL",
		"example.com:443":                       `has a port; give the host "example.com" alone`,
		"[::1]:443":                             `has a port; give the host "::1" alone`,
		"a..b":                                  "label",
		".example.com":                          "label",
		".":                                     "no name",
		"exa mple.com":                          "not a valid name",
		"*.example.com":                         "not a valid name",
		"\x00.example.com":                      "not a valid name",
		"bü cher.example":                       "not a valid name",
		"1.2.3":                                 "looks like an IP address",
		"010.0.0.1.5":                           "looks like an IP address",
		"[::1":                                  "not a valid name",
		strings.Repeat("a", 64) + ".example":    "label",
		strings.Repeat("abcdefgh.", 29) + "com": "253",
	} {
		t.Run(host, func(t *testing.T) {
			client, _ := newStreams(t)
			err := client.AuthenticateAsClient(t.Context(), &sslstream.ClientOptions{TargetHost: host})
			assert.ErrorContains(t, err, says)
			assert.ErrorContains(t, err, "target host")
			var ae *sslstream.AuthenticationError
			assert.False(t, errors.As(err, &ae), "a configuration error")
			client = newStream(t, client, sslstream.WithTargetHost(host))
			assert.ErrorContains(t, client.AuthenticateAsClient(t.Context(), nil), says)
		})
	}
}

func TestWithTargetHost(t *testing.T) {
	f := newFixture(t)
	for _, tc := range []struct {
		name, stream, options, config string
		says                          string
	}{
		{"alone", serverName, "", "", ""},
		{"the same", serverName, serverName, "", ""},
		{"the same, written otherwise", "SERVER.example.", serverName, "", ""},
		{"the same as TLSConfig's", serverName, "", serverName, ""},
		{"another", "other.example", serverName, "", "name the target host once"},
		{"another than TLSConfig's", "other.example", "", serverName, "name the target host once"},
		{"TLSConfig's alone", "", "", serverName, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b := testpki.TCP(t)
			client, server := newStream(t, a, sslstream.WithTargetHost(tc.stream)), newStream(t, b)
			co := f.clientOptions()
			co.TargetHost = tc.options
			if tc.config != "" {
				co.TLSConfig = &tls.Config{ServerName: tc.config}
			}
			if tc.says != "" {
				assert.ErrorContains(t, client.AuthenticateAsClient(t.Context(), co), tc.says)
				return
			}
			err, serverErr := authenticate(t, client, server, co, f.serverOptions())
			require.NoError(t, errors.Join(err, serverErr))
			assert.Equal(t, serverName, server.TargetHostName())
		})
	}
}
