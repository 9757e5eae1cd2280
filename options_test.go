//lint:file-ignore SA1019 a user's config may still use what is deprecated

package sslstream_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// fill sets every exported field of an options struct to something that is not zero.
func fill(t *testing.T, options reflect.Value) {
	for i := range options.NumField() {
		field := options.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		f := options.Field(i)
		switch f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int, reflect.Int64:
			f.SetInt(1)
		case reflect.Uint32:
			f.SetUint(1)
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
		case reflect.Func:
			f.Set(reflect.MakeFunc(f.Type(), func([]reflect.Value) []reflect.Value { return nil }))
		case reflect.Interface:
			f.Set(reflect.ValueOf(tls.NewLRUClientSessionCache(1)))
		default:
			t.Fatalf("field %s has a kind that this test does not know", field.Name)
		}
	}
}

func checkClone(t *testing.T, original, clone reflect.Value) {
	for i := range original.NumField() {
		field := original.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		a, b := original.Field(i), clone.Field(i)
		require.False(t, b.IsZero(), "field %s is not cloned", field.Name)
		switch a.Kind() {
		case reflect.Func:
			assert.Equal(t, a.Pointer(), b.Pointer(), field.Name)
		case reflect.Slice:
			assert.Equal(t, a.Interface(), b.Interface(), field.Name)
			assert.NotEqual(t, a.Pointer(), b.Pointer(), "%s shares its elements", field.Name)
		default:
			assert.Equal(t, a.Interface(), b.Interface(), field.Name)
		}
	}
}

func TestCloneCopiesEveryField(t *testing.T) {
	var co sslstream.ClientOptions
	fill(t, reflect.ValueOf(&co).Elem())
	checkClone(t, reflect.ValueOf(&co).Elem(), reflect.ValueOf(co.Clone()).Elem())
	var so sslstream.ServerOptions
	fill(t, reflect.ValueOf(&so).Elem())
	checkClone(t, reflect.ValueOf(&so).Elem(), reflect.ValueOf(so.Clone()).Elem())
	assert.Nil(t, (*sslstream.ClientOptions)(nil).Clone())
	assert.Nil(t, (*sslstream.ServerOptions)(nil).Clone())
}

// TestEveryConfigFieldIsKnown fails when crypto/tls gets a field that nobody here has thought about.
func TestEveryConfigFieldIsKnown(t *testing.T) {
	known := map[string]string{
		"Rand": "taken over", "Time": "taken over", "CurvePreferences": "taken over", "KeyLogWriter": "taken over",
		"DynamicRecordSizingDisabled": "taken over", "EncryptedClientHelloConfigList": "taken over",
		"EncryptedClientHelloRejectionVerify": "taken over", "GetEncryptedClientHelloKeys": "taken over", "EncryptedClientHelloKeys": "taken over",

		"ServerName": "where ours is empty", "NextProtos": "where ours is empty", "MinVersion": "where ours is empty", "MaxVersion": "where ours is empty",
		"CipherSuites": "where ours is empty", "Certificates": "where ours is empty", "NameToCertificate": "where ours is empty",
		"GetCertificate": "where ours is empty", "GetClientCertificate": "where ours is empty", "RootCAs": "where ours is empty",
		"ClientCAs": "where ours is empty", "ClientSessionCache": "where ours is empty", "Renegotiation": "where ours is empty",

		"VerifyPeerCertificate": "besides", "VerifyConnection": "besides",

		"InsecureSkipVerify": "refused", "ClientAuth": "refused", "GetConfigForClient": "refused", "WrapSession": "refused",
		"UnwrapSession": "refused", "SessionTicketKey": "refused", "SessionTicketsDisabled": "refused",

		"PreferServerCipherSuites": "without effect in crypto/tls",
	}
	for i := range reflect.TypeFor[tls.Config]().NumField() {
		if field := reflect.TypeFor[tls.Config]().Field(i); field.IsExported() {
			assert.Contains(t, known, field.Name, "is it taken over, refused, or does ours win?")
		}
	}
}

func TestTLSConfigIsTakenOver(t *testing.T) {
	f := newFixture(t)
	t.Run("client", func(t *testing.T) {
		var log bytes.Buffer
		later := time.Now().Add(48 * time.Hour)
		verified := 0
		co := &sslstream.ClientOptions{
			RemoteCertificateValidationCallback: func(_ context.Context, _ *sslstream.Stream, _ *x509.Certificate, chain *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
				assert.Equal(t, notTimeValid, statusOf(chain), "Time is what now is")
				return 0, nil
			},
			TLSConfig: &tls.Config{
				ServerName: serverName, NextProtos: []string{"b"}, MaxVersion: tls.VersionTLS12, RootCAs: testpki.Pool(f.root),
				CipherSuites:     []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384},
				CurvePreferences: []tls.CurveID{tls.CurveP384}, KeyLogWriter: &log, Time: func() time.Time { return later },
				Certificates: []tls.Certificate{f.client},
				VerifyPeerCertificate: func(raw [][]byte, chains [][]*x509.Certificate) error {
					verified++
					assert.Equal(t, f.server.Certificate, raw)
					return nil
				},
				VerifyConnection: func(cs tls.ConnectionState) error {
					verified++
					assert.Equal(t, serverName, cs.ServerName)
					return nil
				},
				GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("for servers") },
				ClientCAs:      x509.NewCertPool(),
			},
		}
		so := f.serverOptions()
		so.ApplicationProtocols, so.ClientCertificateRequired = []string{"a", "b"}, true
		client, server := newPair(t, co, so)
		exchange(t, client, server)
		assert.Equal(t, serverName, server.TargetHostName())
		assert.Equal(t, "b", client.NegotiatedApplicationProtocol())
		assert.Equal(t, tls12, client.Protocol())
		assert.Equal(t, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, client.NegotiatedCipherSuite())
		assert.Equal(t, tls.CurveP384, client.NegotiatedGroup())
		assert.True(t, client.IsMutuallyAuthenticated())
		assert.Contains(t, log.String(), "CLIENT_RANDOM")
		assert.Equal(t, 2, verified)
	})
	t.Run("its CipherSuites leave TLS 1.3 alone", func(t *testing.T) {
		co := f.clientOptions()
		co.TLSConfig = &tls.Config{CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}
		client, _ := newPair(t, co, f.serverOptions())
		assert.Equal(t, tls13, client.Protocol())
	})
	t.Run("its session cache", func(t *testing.T) {
		cache := tls.NewLRUClientSessionCache(1)
		so := f.serverOptions()
		options := func() *sslstream.ClientOptions {
			co := f.clientOptions()
			co.TLSConfig = &tls.Config{ClientSessionCache: cache}
			return co
		}
		connect(t, options(), so)
		assert.True(t, connect(t, options(), so))
	})
	t.Run("server", func(t *testing.T) {
		verified := 0
		so := &sslstream.ServerOptions{
			ClientCertificateRequired: true,
			TLSConfig: &tls.Config{
				Certificates: []tls.Certificate{f.server}, ClientCAs: testpki.Pool(f.root), NextProtos: []string{"a"}, MinVersion: tls.VersionTLS13,
				CurvePreferences:   []tls.CurveID{tls.CurveP521},
				VerifyConnection:   func(cs tls.ConnectionState) error { verified++; return nil },
				ServerName:         "for.clients.example",
				RootCAs:            x509.NewCertPool(),
				ClientSessionCache: tls.NewLRUClientSessionCache(1),
				Renegotiation:      tls.RenegotiateFreelyAsClient,
			},
		}
		co, _ := f.mutual()
		co.ApplicationProtocols = []string{"a"}
		client, server := newPair(t, co, so)
		exchange(t, client, server)
		assert.Equal(t, "a", server.NegotiatedApplicationProtocol())
		assert.Equal(t, tls.CurveP521, server.NegotiatedGroup())
		assert.True(t, server.IsMutuallyAuthenticated())
		assert.Equal(t, 1, verified)
		cs := server.ConnectionState()
		_, err := cs.ExportKeyingMaterial("label", nil, 16)
		assert.NoError(t, err, "Renegotiation is for clients")

		so.TLSConfig.MinVersion = tls.VersionTLS12 // options were read
		co.EnabledProtocols = tls12
		client, server = newStreams(t)
		err, _ = authenticate(t, client, server, co.Clone(), so)
		assert.Error(t, err)
	})
	t.Run("VerifyPeerCertificate and VerifyConnection can only refuse", func(t *testing.T) {
		objection := errors.New("objection")
		for name, config := range map[string]*tls.Config{
			"VerifyPeerCertificate": {VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error { return objection }},
			"VerifyConnection":      {VerifyConnection: func(tls.ConnectionState) error { return objection }},
		} {
			co := f.clientOptions()
			co.TLSConfig = config
			client, server := newStreams(t)
			err, _ := authenticate(t, client, server, co, f.serverOptions())
			assert.ErrorIs(t, err, objection, name)

			config = &tls.Config{
				VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error { t.Error("after our verdict"); return nil },
				VerifyConnection:      func(tls.ConnectionState) error { t.Error("after our verdict"); return nil },
			}
			co = f.clientOptions()
			co.TLSConfig, co.TargetHost = config, "other.example"
			client, server = newStreams(t)
			err, _ = authenticate(t, client, server, co, f.serverOptions())
			assert.Equal(t, nameMismatch, authenticationError(t, err).PolicyErrors)
		}
	})
	t.Run("a config that crypto/tls has used", func(t *testing.T) {
		used := &tls.Config{Certificates: []tls.Certificate{f.server}}
		_, err := used.DecryptTicket(nil, tls.ConnectionState{}) // fills in its key
		require.NoError(t, err)
		require.NotZero(t, used.SessionTicketKey)
		_, _ = newPair(t, f.clientOptions(), &sslstream.ServerOptions{TLSConfig: used})
	})
}

func TestEncryptedClientHello(t *testing.T) {
	f := newFixture(t)
	config, key := testpki.ECH(t, "public.example")
	public := f.intermediate.Issue(t, "public.example")
	t.Run("accepted", func(t *testing.T) {
		co, so := f.clientOptions(), f.serverOptions()
		co.TLSConfig = &tls.Config{EncryptedClientHelloConfigList: config}
		so.TLSConfig = &tls.Config{EncryptedClientHelloKeys: []tls.EncryptedClientHelloKey{key}}
		client, server := newPair(t, co, so)
		exchange(t, client, server)
		assert.True(t, client.Security().ECHAccepted)
		assert.Equal(t, serverName, server.TargetHostName())
		assert.Equal(t, tls13, client.Protocol())
	})
	t.Run("narrows the default", func(t *testing.T) {
		setSecurityProtocol(t, tls12)
		co := f.clientOptions()
		co.TLSConfig = &tls.Config{EncryptedClientHelloConfigList: config}
		client, _ := newStreams(t)
		assert.ErrorContains(t, client.AuthenticateAsClient(t.Context(), co), "Encrypted Client Hello")
	})
	t.Run("rejected", func(t *testing.T) {
		co, so := f.clientOptions(), f.serverOptions()
		co.TLSConfig = &tls.Config{EncryptedClientHelloConfigList: config}
		so.ServerCertificate = &public
		client, server := newStreams(t)
		err, _ := authenticate(t, client, server, co, so)
		var rejected *tls.ECHRejectionError
		assert.ErrorAs(t, err, &rejected, "the public name's certificate is verified by the trust store given")
	})
	t.Run("rejected by a stranger", func(t *testing.T) {
		co, so := f.clientOptions(), f.serverOptions()
		co.TLSConfig = &tls.Config{EncryptedClientHelloConfigList: config}
		stranger := testpki.SelfSigned(t, "public.example")
		so.ServerCertificate = &stranger
		client, server := newStreams(t)
		err, _ := authenticate(t, client, server, co, so)
		var unknown x509.UnknownAuthorityError
		assert.ErrorAs(t, err, &unknown)
	})
}

func TestRenegotiation(t *testing.T) {
	co := &sslstream.ClientOptions{AllowRenegotiation: true, RemoteCertificateValidationCallback: accept}
	f := newFixture(t)
	client, server := newPair(t, co, f.serverOptions())
	exchange(t, client, server)
	cs := client.ConnectionState()
	_, err := cs.ExportKeyingMaterial("label", nil, 16)
	assert.Error(t, err, "crypto/tls exports nothing where it may renegotiate; interop renegotiates for real")
}
