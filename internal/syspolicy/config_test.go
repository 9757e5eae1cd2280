package syspolicy

import (
	"crypto/tls"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTLSRangeOfCommands(t *testing.T) {
	tests := []struct {
		name     string
		commands string
		want     Range
	}{
		{"no commands of ours", "CipherString = DEFAULT", Range{}},
		{"minimum", "MinProtocol = TLSv1.2", Range{Min: tls.VersionTLS12}},
		{"maximum", "MaxProtocol = TLSv1.2", Range{Max: tls.VersionTLS12}},
		{"both", "MinProtocol = TLSv1.1\nMaxProtocol = TLSv1.2", Range{tls.VersionTLS11, tls.VersionTLS12}},
		{"TLS 1.0", "MinProtocol = TLSv1\nMaxProtocol = TLSv1", Range{tls.VersionTLS10, tls.VersionTLS10}},
		{"TLS 1.3", "MinProtocol = TLSv1.3\nMaxProtocol = TLSv1.3", Range{tls.VersionTLS13, tls.VersionTLS13}},
		{"empty range", "MinProtocol = TLSv1.3\nMaxProtocol = TLSv1.1", Range{tls.VersionTLS13, tls.VersionTLS11}},
		{"SSLv3 as minimum", "MinProtocol = SSLv3", Range{}},
		{"SSLv3 as maximum", "MaxProtocol = SSLv3", Range{Max: 0x0300}},
		{"None", "MinProtocol = None\nMaxProtocol = None", Range{}},
		{"None lifts a limit", "MinProtocol = TLSv1.2\n1.MinProtocol = None", Range{}},
		{"SSLv3 lifts a minimum", "MinProtocol = TLSv1.2\n1.MinProtocol = SSLv3", Range{}},

		{"command in lower case", "minprotocol = TLSv1.2", Range{Min: tls.VersionTLS12}},
		{"command in upper case", "MAXPROTOCOL = TLSv1.2", Range{Max: tls.VersionTLS12}},
		{"value in lower case", "MinProtocol = tlsv1.2", Range{}},
		{"other command", "MinProtocols = TLSv1.2\nProtocol = -TLSv1.3", Range{}},

		{"crypto-policies", "TLS.MinProtocol = TLSv1.2\nTLS.MaxProtocol = TLSv1.3\n" +
			"DTLS.MinProtocol = DTLSv1.2\nDTLS.MaxProtocol = DTLSv1.2", Range{tls.VersionTLS12, tls.VersionTLS13}},
		{"number as prefix", "1.MinProtocol = TLSv1.2", Range{Min: tls.VersionTLS12}},
		{"empty prefix", ".MinProtocol = TLSv1.2", Range{Min: tls.VersionTLS12}},
		{"prefix with a dot", "a.b.MinProtocol = TLSv1.2", Range{}},
		{"DTLS only", "MinProtocol = DTLSv1\nMaxProtocol = DTLSv1.2", Range{}},
		{"DTLS prefix, TLS value", "DTLS.MinProtocol = TLSv1.2", Range{Min: tls.VersionTLS12}},

		{"same name, last wins", "MinProtocol = TLSv1.2\nMinProtocol = TLSv1.1", Range{Min: tls.VersionTLS11}},
		{"other prefix, last wins", "A.MinProtocol = TLSv1.2\nB.MinProtocol = TLSv1.1", Range{Min: tls.VersionTLS11}},
		{"other case, last wins", "MinProtocol = TLSv1.2\nminprotocol = TLSv1.1", Range{Min: tls.VersionTLS11}},
		{"replaced line moves to its end", "A.MinProtocol = TLSv1\nB.MinProtocol = TLSv1.1\nA.MinProtocol = TLSv1.2",
			Range{Min: tls.VersionTLS12}},

		{"unknown value", "MinProtocol = TLSv1.4", Range{}},
		{"unknown value beside a known one", "A.MinProtocol = TLSv1.2\nB.MinProtocol = TLSv9", Range{Min: tls.VersionTLS12}},
		{"unknown value in place of a known one", "MinProtocol = TLSv1.2\nMinProtocol = TLSv9", Range{}},
		{"empty value", "A.MinProtocol = TLSv1.2\nMinProtocol =", Range{Min: tls.VersionTLS12}},
		{"DTLS value in place of a TLS one", "MinProtocol = TLSv1.2\nMinProtocol = DTLSv1.2", Range{}},
		{"failing command before", "CipherString = no such thing\nMinProtocol = TLSv1.2", Range{Min: tls.VersionTLS12}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conf, err := parseText(t, toCommands+tt.commands+"\n")
			require.NoError(t, err)
			assert.Equal(t, tt.want, conf.tlsRange())
		})
	}
}

func TestTLSRangeFollowsSections(t *testing.T) {
	const narrow = "[commands]\nMinProtocol = TLSv1.2\n"
	found := Range{Min: tls.VersionTLS12}
	tests := []struct {
		name string
		text string
		want Range
	}{
		{"empty file", "", Range{}},
		{"whole way", toCommands + narrow, found},
		{"sections in any order", narrow + "[contexts]\nsystem_default = commands\n" +
			"[modules]\nssl_conf = contexts\n[default]\nopenssl_conf = modules\n", found},
		{"sections in pieces", toCommands + "A.MaxProtocol = TLSv1.2\n[other]\nx = y\n" + narrow,
			Range{tls.VersionTLS12, tls.VersionTLS12}},
		{"openssl_conf in another section", "[x]\n" + toCommands + narrow, Range{}},
		{"no openssl_conf", "[modules]\nssl_conf = contexts\n[contexts]\nsystem_default = commands\n" + narrow, Range{}},
		{"openssl_conf to nowhere", "openssl_conf = elsewhere\n" + narrow, Range{}},
		{"no ssl_conf", "openssl_conf = modules\n[modules]\nproviders = p\n" + narrow, Range{}},
		{"ssl_conf to nowhere", "openssl_conf = modules\n[modules]\nssl_conf = elsewhere\n" + narrow, Range{}},
		{"no system_default", "openssl_conf = modules\n[modules]\nssl_conf = contexts\n" +
			"[contexts]\nserver = commands\n" + narrow, Range{}},
		{"system_default to nowhere", "openssl_conf = modules\n[modules]\nssl_conf = contexts\n" +
			"[contexts]\nsystem_default = elsewhere\n" + narrow, Range{}},
		{"names of sections are case-sensitive", "openssl_conf = Modules\n[modules]\nssl_conf = contexts\n" +
			"[contexts]\nsystem_default = commands\n" + narrow, Range{}},
		{"system_default is case-sensitive", "openssl_conf = modules\n[modules]\nssl_conf = contexts\n" +
			"[contexts]\nSystem_Default = commands\n" + narrow, Range{}},
		{"default section does not stand in", "openssl_conf = modules\nssl_conf = contexts\n" +
			"system_default = commands\n[modules]\nx = y\n[contexts]\nx = y\n" + narrow, Range{}},
		{"other context is fine", toCommands + narrow + "[contexts]\nserver = more\n[more]\nOptions = Bugs\n", found},
		{"other context to nowhere", toCommands + narrow + "[contexts]\nserver = more\n", Range{}},
		{"other context is empty", toCommands + narrow + "[contexts]\nserver = more\n[more]\n", Range{}},
		{"no context at all", "openssl_conf = modules\n[modules]\nssl_conf = contexts\n[contexts]\n" + narrow, Range{}},
		{"module name with suffix", "openssl_conf = modules\n[modules]\nssl_conf.1 = contexts\n" +
			"[contexts]\nsystem_default = commands\n" + narrow, found},
		{"later module replaces", toCommands + narrow + "[modules]\nssl_conf.2 = others\n" +
			"[others]\nsystem_default = wide\n[wide]\nMaxProtocol = TLSv1.3\n", Range{Max: tls.VersionTLS13}},
		{"later module fails", toCommands + narrow + "[modules]\nssl_conf.2 = nowhere\n", Range{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conf, err := parseText(t, tt.text)
			require.NoError(t, err)
			assert.Equal(t, tt.want, conf.tlsRange())
		})
	}
}
