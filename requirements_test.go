package sslstream_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
)

// TestRequirementsOnResumedSessions makes a session and then one that could resume it, and has either side require something
// of it. A session that meets it is resumed. One that does not fails: on a client also where it was made before anything was
// required of it; a server makes a full handshake then, and checks that, unless the client changed its mind.
func TestRequirementsOnResumedSessions(t *testing.T) {
	skipInFIPSMode(t, "X25519")
	f := newFixture(t)
	rsa := f.intermediate.Issue(t, serverName, rsaKey)
	rsakex := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}}
	classic := &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}
	hybrid := &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
	p384 := &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}}
	type options struct {
		*sslstream.ClientOptions
		*sslstream.ServerOptions
	}
	only12 := func(o options) { o.ServerOptions.EnabledProtocols = tls12 }
	for _, tc := range []struct {
		name          string
		require       sslstream.Requirements
		both          func(options) // changes the options of both sessions
		first, second *tls.Config   // the client's
		unmet         string        // "": met
		stale         bool          // the first session met it, and is resumed
	}{
		{name: "protocol", require: sslstream.Requirements{Protocols: tls12}, both: only12},
		{name: "protocol, not", require: sslstream.Requirements{Protocols: tls13}, both: only12, unmet: "Protocols: TLS12 is not of TLS13"},
		{name: "cipher", require: sslstream.Requirements{MinCipherStrength: 128}},
		{name: "cipher, not", require: sslstream.Requirements{MinCipherStrength: 256}, unmet: "MinCipherStrength: 128 < 256"},
		{name: "hash", require: sslstream.Requirements{MinHashStrength: 256}},
		{name: "hash, not", require: sslstream.Requirements{MinHashStrength: 384}, unmet: "MinHashStrength: 256 < 384"},
		{name: "key exchange", require: sslstream.Requirements{MinKeyExchangeStrength: 255}},
		{name: "key exchange, not", require: sslstream.Requirements{MinKeyExchangeStrength: 256}, unmet: "MinKeyExchangeStrength: 255 < 256"},
		{name: "key exchange, no more", require: sslstream.Requirements{MinKeyExchangeStrength: 384}, first: p384, second: classic, unmet: "MinKeyExchangeStrength: 255 < 384", stale: true},
		{name: "key exchange in TLS 1.2", require: sslstream.Requirements{MinKeyExchangeStrength: 255}, both: only12},
		{name: "key exchange in TLS 1.2, not", require: sslstream.Requirements{MinKeyExchangeStrength: 256}, both: only12, unmet: "MinKeyExchangeStrength: 255 < 256"},
		{name: "forward secrecy", require: sslstream.Requirements{ForwardSecrecy: true}},
		{name: "forward secrecy in TLS 1.2", require: sslstream.Requirements{ForwardSecrecy: true}, both: only12},
		{name: "forward secrecy, not", require: sslstream.Requirements{ForwardSecrecy: true}, first: rsakex, second: rsakex, both: func(o options) {
			o.ServerCertificate, o.ServerOptions.TLSConfig = &rsa, rsakex
		}, unmet: "ForwardSecrecy"},
		{name: "post-quantum", require: sslstream.Requirements{PostQuantum: true}},
		{name: "post-quantum, not", require: sslstream.Requirements{PostQuantum: true}, first: classic, second: classic, unmet: "PostQuantum"},
		{name: "post-quantum, no more", require: sslstream.Requirements{PostQuantum: true}, first: hybrid, second: classic, unmet: "PostQuantum", stale: true},
		{name: "mutual", require: sslstream.Requirements{MutualAuthentication: true}, both: func(o options) {
			o.ClientCertificates, o.ClientCertificateRequired = []tls.Certificate{f.client}, true
		}},
		{name: "mutual, not", require: sslstream.Requirements{MutualAuthentication: true}, unmet: "MutualAuthentication"},
		{name: "application protocol", require: sslstream.Requirements{ApplicationProtocol: true}, both: func(o options) {
			o.ClientOptions.ApplicationProtocols, o.ServerOptions.ApplicationProtocols = []string{"a"}, []string{"a"}
		}},
		{name: "application protocol, not", require: sslstream.Requirements{ApplicationProtocol: true}, unmet: "ApplicationProtocol"},
	} {
		for _, side := range []string{"client", "server"} {
			t.Run(tc.name+"/"+side, func(t *testing.T) {
				cache, keys := tls.NewLRUClientSessionCache(1), [][32]byte{{1}}
				resumed := false
				look := func(_ context.Context, s *sslstream.Stream, _ *x509.Certificate, _ *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
					resumed = s.Security().Resumed
					return errs, nil
				}
				newOptions := func(config *tls.Config, required bool) (*sslstream.ClientOptions, *sslstream.ServerOptions) {
					co, so := f.clientOptions(), f.serverOptions()
					co.SessionCache, co.TLSConfig = cache, config
					if tc.both != nil {
						tc.both(options{co, so})
					}
					require.NoError(t, so.SetSessionTicketKeys(keys))
					if side == "client" {
						co.RemoteCertificateValidationCallback = look
					} else {
						so.RemoteCertificateValidationCallback = look
					}
					if required && side == "client" {
						co.Require = &tc.require
					} else if required {
						so.Require = &tc.require
					}
					return co, so
				}

				co, so := newOptions(tc.first, tc.unmet == "" || tc.stale)
				client, server := newPair(t, co, so)
				exchange(t, client, server) // reads the ticket
				require.False(t, resumed)

				client, server = newStreams(t)
				co, so = newOptions(tc.second, true)
				err, serverErr := authenticate(t, client, server, co, so)
				if tc.unmet == "" {
					require.NoError(t, errors.Join(err, serverErr))
					exchange(t, client, server)
					assert.True(t, resumed)
					return
				}
				assert.Equal(t, side == "client" || tc.stale, resumed)
				failed, stream, peer := err, client, server
				if side == "server" {
					failed, stream, peer = serverErr, server, client
				}
				var unmet *sslstream.RequirementError
				require.ErrorAs(t, failed, &unmet)
				assert.Equal(t, []string{tc.unmet}, unmet.Unmet)
				_, err = stream.Write([]byte("x"))
				assert.Same(t, authenticationError(t, failed), err, "no application byte")
				_, err = stream.Read(make([]byte, 1))
				assert.Same(t, authenticationError(t, failed), err, "in neither direction")
				stream.Inner().Close()
				n, err := peer.Read(make([]byte, 1))
				assert.Zero(t, n)
				assert.Error(t, err)
			})
		}
	}
}
