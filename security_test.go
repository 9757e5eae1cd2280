package sslstream_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
)

func TestSecurity(t *testing.T) {
	f := newFixture(t)
	co, so := f.mutual()
	co.ApplicationProtocols, so.ApplicationProtocols = []string{"echo"}, []string{"echo"}
	client, server := newPair(t, co, so)
	want := sslstream.Security{
		Protocol: tls13, CipherSuite: tls.TLS_AES_128_GCM_SHA256,
		CipherAlgorithm: sslstream.CipherAlgorithmAES128, CipherStrength: 128,
		HashAlgorithm: sslstream.HashAlgorithmSHA256, HashStrength: 256,
		KeyExchangeAlgorithm: sslstream.ExchangeAlgorithmHybridMLKEM, KeyExchangeStrength: 255, Group: tls.X25519MLKEM768,
		ApplicationProtocol: "echo", MutuallyAuthenticated: true,
	}
	assert.Equal(t, want, client.Security())
	assert.Equal(t, want, server.Security())
	client.Close()
	assert.Equal(t, want, client.Security(), "kept after Close")

	assert.Equal(t, "Cipher: Aes128 strength 128\nHash: Sha256 strength 256\nKey exchange: HybridMLKEM strength 255\nProtocol: TLS13", want.String())

	b, err := json.Marshal(want)
	require.NoError(t, err)
	assert.JSONEq(t, `{"protocol":"TLS13","cipherSuite":"TLS_AES_128_GCM_SHA256","cipherAlgorithm":"Aes128","cipherStrength":128,
		"hashAlgorithm":"Sha256","hashStrength":256,"keyExchangeAlgorithm":"HybridMLKEM","keyExchangeStrength":255,"group":"X25519MLKEM768",
		"applicationProtocol":"echo","mutuallyAuthenticated":true,"resumed":false,"echAccepted":false}`, string(b))
	b, err = json.Marshal(sslstream.Security{})
	require.NoError(t, err)
	assert.Contains(t, string(b), `"cipherSuite":""`)

	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("authenticated", "tls", want)
	assert.Contains(t, log.String(), "tls.protocol=TLS13 tls.cipherSuite=TLS_AES_128_GCM_SHA256 tls.cipherAlgorithm=Aes128 tls.cipherStrength=128")
	assert.Contains(t, log.String(), "tls.mutuallyAuthenticated=true")
}

func TestRequirements(t *testing.T) {
	skipInFIPSMode(t, "X25519")
	f := newFixture(t)
	classic := &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}
	rsakex := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}}
	for _, tc := range []struct {
		name    string
		require sslstream.Requirements
		config  *tls.Config // the client's
		change  func(*sslstream.ClientOptions, *sslstream.ServerOptions)
		unmet   []string // nil: met
	}{
		{"none", sslstream.Requirements{}, nil, nil, nil},
		{"protocol", sslstream.Requirements{Protocols: tls12 | tls13}, nil, nil, nil},
		{"protocol, not", sslstream.Requirements{Protocols: tls12}, nil, nil, []string{"Protocols: TLS13 is not of TLS12"}},
		{"cipher", sslstream.Requirements{MinCipherStrength: 128}, nil, nil, nil},
		{"cipher, not", sslstream.Requirements{MinCipherStrength: 256}, nil, nil, []string{"MinCipherStrength: 128 < 256"}},
		{"hash", sslstream.Requirements{MinHashStrength: 256}, nil, nil, nil},
		{"hash, not", sslstream.Requirements{MinHashStrength: 384}, nil, nil, []string{"MinHashStrength: 256 < 384"}},
		{"key exchange", sslstream.Requirements{MinKeyExchangeStrength: 255}, nil, nil, nil},
		{"key exchange, not", sslstream.Requirements{MinKeyExchangeStrength: 256}, nil, nil, []string{"MinKeyExchangeStrength: 255 < 256"}},
		{"key exchange in TLS 1.2", sslstream.Requirements{MinKeyExchangeStrength: 255}, &tls.Config{MaxVersion: tls.VersionTLS12}, nil, nil},
		{"key exchange in TLS 1.2, not", sslstream.Requirements{MinKeyExchangeStrength: 256}, &tls.Config{MaxVersion: tls.VersionTLS12}, nil, []string{"MinKeyExchangeStrength: 255 < 256"}},
		{"forward secrecy", sslstream.Requirements{ForwardSecrecy: true}, nil, nil, nil},
		{"forward secrecy, not", sslstream.Requirements{ForwardSecrecy: true}, rsakex, nil, []string{"ForwardSecrecy"}},
		{"post-quantum", sslstream.Requirements{PostQuantum: true}, nil, nil, nil},
		{"post-quantum, not", sslstream.Requirements{PostQuantum: true}, classic, nil, []string{"PostQuantum"}},
		{"mutual", sslstream.Requirements{MutualAuthentication: true}, nil, func(co *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			co.ClientCertificates, so.ClientCertificateRequired = []tls.Certificate{f.client}, true
		}, nil},
		{"mutual, not", sslstream.Requirements{MutualAuthentication: true}, nil, nil, []string{"MutualAuthentication"}},
		{"application protocol", sslstream.Requirements{ApplicationProtocol: true}, nil, func(co *sslstream.ClientOptions, so *sslstream.ServerOptions) {
			co.ApplicationProtocols, so.ApplicationProtocols = []string{"a"}, []string{"a"}
		}, nil},
		{"application protocol, not", sslstream.Requirements{ApplicationProtocol: true}, nil, nil, []string{"ApplicationProtocol"}},
		{"several", sslstream.Requirements{MinCipherStrength: 256, PostQuantum: true}, classic, nil, []string{"MinCipherStrength: 128 < 256", "PostQuantum"}},
	} {
		for _, side := range []string{"client", "server"} {
			t.Run(tc.name+"/"+side, func(t *testing.T) {
				rsa := f.intermediate.Issue(t, serverName, rsaKey)
				co, so := f.clientOptions(), f.serverOptions()
				if tc.config == rsakex {
					so.ServerCertificate = &rsa
					so.TLSConfig = rsakex
				}
				co.TLSConfig = tc.config
				if tc.change != nil {
					tc.change(co, so)
				}
				if side == "client" {
					co.Require = &tc.require
				} else {
					so.Require = &tc.require
				}
				client, server := newStreams(t)
				err, serverErr := authenticate(t, client, server, co, so)
				if tc.unmet == nil {
					require.NoError(t, errors.Join(err, serverErr))
					exchange(t, client, server)
					return
				}
				failed, stream, peer := err, client, server
				if side == "server" {
					failed, stream, peer = serverErr, server, client
				}
				ae := authenticationError(t, failed)
				var unmet *sslstream.RequirementError
				require.ErrorAs(t, failed, &unmet)
				assert.Same(t, unmet, ae.Err)
				assert.Equal(t, tc.unmet, unmet.Unmet)
				assert.Zero(t, ae.PolicyErrors)
				for _, u := range tc.unmet {
					assert.ErrorContains(t, failed, u)
				}
				_, err = stream.Write([]byte("x"))
				assert.Same(t, ae, err, "no application byte")
				_, err = stream.Read(make([]byte, 1))
				assert.Same(t, ae, err, "in neither direction")
				stream.Inner().Close()
				n, err := peer.Read(make([]byte, 1))
				assert.Zero(t, n)
				assert.Error(t, err)
			})
		}
	}
}
