package sslstream_test

import (
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

const (
	tls10 = sslstream.ProtocolTLS10
	tls11 = sslstream.ProtocolTLS11
	tls12 = sslstream.ProtocolTLS12
	tls13 = sslstream.ProtocolTLS13
)

func TestProtocolsText(t *testing.T) {
	for p, text := range map[sslstream.Protocols]string{
		0: "SystemDefault", tls13: "TLS13", tls12 | tls13: "TLS12|TLS13", tls10 | tls11: "TLS10|TLS11",
		sslstream.ProtocolSSL2: "SSL2", sslstream.ProtocolSSL3 | tls10: "SSL3|TLS10", 1: "0x1", tls12 | 0x40: "TLS12|0x40",
	} {
		assert.Equal(t, text, p.String())
		b, err := p.MarshalText()
		require.NoError(t, err)
		var back sslstream.Protocols
		require.NoError(t, back.UnmarshalText(b))
		assert.Equal(t, p, back)
	}
	for text, p := range map[string]sslstream.Protocols{
		"Tls12, Tls13": tls12 | tls13, "None": 0, "tls": tls10, "Tls, Tls11": tls10 | tls11, " TLS12 | tls13 ": tls12 | tls13,
		"systemdefault": 0, "3072": tls12, "0xc00": tls12, "Ssl3": sslstream.ProtocolSSL3, "Default": 240,
	} {
		got := sslstream.Protocols(1)
		require.NoError(t, got.UnmarshalText([]byte(text)), text)
		assert.Equal(t, p, got, text)
	}
	for _, text := range []string{"", " ", "|", "TLS14", "TLS12 TLS13", "-1", "99999999999"} {
		got := sslstream.Protocols(1)
		assert.Error(t, got.UnmarshalText([]byte(text)), "%q", text)
		assert.Equal(t, sslstream.Protocols(1), got, "an error leaves it as it was")
	}
}

func TestAlgorithmNames(t *testing.T) {
	for name, a := range map[string]sslstream.CipherAlgorithm{"None": 0, "ChaCha20": 1, "TripleDes": 26115, "Aes128": 26126, "Aes256": 26128, "Rc4": 26625, "7": 7} {
		assert.Equal(t, name, a.String())
	}
	for name, a := range map[string]sslstream.HashAlgorithm{"None": 0, "Sha1": 32772, "Sha256": 32780, "Sha384": 32781, "7": 7} {
		assert.Equal(t, name, a.String())
	}
	for name, a := range map[string]sslstream.ExchangeAlgorithm{"None": 0, "HybridMLKEM": 1, "RsaKeyX": 41984, "ECDHE": 44550, "7": 7} {
		assert.Equal(t, name, a.String())
	}
}

// setSecurityProtocol sets the default for one test.
func setSecurityProtocol(t *testing.T, p sslstream.Protocols) {
	t.Helper()
	before := sslstream.SecurityProtocol()
	require.NoError(t, sslstream.SetSecurityProtocol(p))
	t.Cleanup(func() { require.NoError(t, sslstream.SetSecurityProtocol(before)) })
}

func TestSecurityProtocol(t *testing.T) {
	f := newFixture(t)
	assert.Equal(t, sslstream.ProtocolSystemDefault, sslstream.SecurityProtocol())
	t.Run("refused", func(t *testing.T) {
		setSecurityProtocol(t, tls12)
		for _, p := range []sslstream.Protocols{sslstream.ProtocolSSL2, sslstream.ProtocolSSL3, sslstream.ProtocolSSL3 | tls12, 1, tls12 | 0x40, 1 << 31} {
			assert.ErrorIs(t, sslstream.SetSecurityProtocol(p), errors.ErrUnsupported)
			assert.Equal(t, tls12, sslstream.SecurityProtocol(), "the value stays as it was")
		}
	})
	t.Run("read at each authentication", func(t *testing.T) {
		co, so := f.clientOptions(), f.serverOptions()
		client, server := newPair(t, co, so)
		assert.Equal(t, tls13, client.Protocol())
		setSecurityProtocol(t, tls12)
		assert.Equal(t, tls12, sslstream.SecurityProtocol())
		exchange(t, client, server)
		assert.Equal(t, tls13, client.Protocol(), "what was made before the change keeps what it has")
		client, _ = newPair(t, co, so)
		assert.Equal(t, tls12, client.Protocol())
		co.EnabledProtocols = 0
		explicit := co.Clone()
		explicit.EnabledProtocols = tls13
		client, server = newStreams(t)
		err, _ := authenticate(t, client, server, explicit, so)
		assert.Error(t, err, "the server still follows the default")
		both := so.Clone()
		both.EnabledProtocols = tls13
		client, _ = newPair(t, explicit, both)
		assert.Equal(t, tls13, client.Protocol(), "EnabledProtocols wins")
	})
	t.Run("at once", func(t *testing.T) {
		setSecurityProtocol(t, 0)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { assert.NoError(t, sslstream.SetSecurityProtocol(tls12|tls13)) })
			wg.Go(func() { sslstream.SecurityProtocol() })
		}
		wg.Wait()
	})
}

func TestHolesInProtocols(t *testing.T) {
	skipInFIPSMode(t, "TLS 1.0 and 1.1")
	f := newFixture(t)
	const all = tls10 | tls11 | tls12 | tls13
	for _, tc := range []struct {
		client, server sslstream.Protocols
		want           sslstream.Protocols // 0: none
		refusedBy      string
	}{
		{all, tls10 | tls12, tls12, ""},
		{tls10 | tls11, tls10 | tls12, tls10, ""},
		{tls11, tls10 | tls12, 0, "server"},
		{all, tls11 | tls13, tls13, ""},
		{tls10 | tls11 | tls12, tls11 | tls13, tls11, ""},
		{tls12, tls11 | tls13, 0, "server"},
		{tls10 | tls12, all, tls12, ""},
		{tls10 | tls12, tls11, 0, "client"},
		{tls10 | tls13, tls12, 0, "client"},
		{tls10 | tls13, tls10 | tls12, 0, "client"}, // TLS 1.2 was offered: the client's hello has no holes
		{tls10 | tls12 | tls13, tls10 | tls11, 0, "client"},
	} {
		t.Run(tc.client.String()+" to "+tc.server.String(), func(t *testing.T) {
			co, so := f.clientOptions(), f.serverOptions()
			co.EnabledProtocols, so.EnabledProtocols = tc.client, tc.server
			client, server := newStreams(t)
			err, serverErr := authenticate(t, client, server, co, so)
			switch tc.refusedBy {
			case "":
				require.NoError(t, errors.Join(err, serverErr))
				assert.Equal(t, tc.want, client.Protocol())
				assert.Equal(t, tc.want, server.Protocol())
			case "server":
				assert.Equal(t, tls.AlertError(70), authenticationError(t, err).RemoteAlert, "protocol_version")
				assert.Zero(t, authenticationError(t, serverErr).RemoteAlert)
			case "client":
				assert.NotZero(t, authenticationError(t, serverErr).RemoteAlert)
				assert.Zero(t, authenticationError(t, err).RemoteAlert)
				assert.ErrorContains(t, err, "which is not one of "+tc.client.String())
			}
		})
	}
}

func TestSystemDefaultFollowsOpenSSLConfiguration(t *testing.T) {
	skipInFIPSMode(t, "TLS 1.0 and 1.1")
	f := newFixture(t)
	write := func(t *testing.T, system string) {
		file := filepath.Join(t.TempDir(), "openssl.cnf")
		text := "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = system\n[system]\n" + system
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		t.Setenv("OPENSSL_CONF", file)
	}
	for _, tc := range []struct {
		name, system string
		want         sslstream.Protocols
	}{
		{"nothing", "", tls13},
		{"maximum", "MaxProtocol = TLSv1.2\n", tls12},
		{"minimum", "MinProtocol = TLSv1.3\n", tls13},
		{"minimum below crypto/tls's own", "MinProtocol = TLSv1\n", tls13},
		{"both", "MinProtocol = TLSv1.2\nMaxProtocol = TLSv1.2\n", tls12},
	} {
		t.Run(tc.name, func(t *testing.T) {
			co, so := f.clientOptions(), f.serverOptions()
			write(t, tc.system)
			client, _ := newPair(t, co, so)
			assert.Equal(t, tc.want, client.Protocol())
		})
	}
	t.Run("a client narrowed to TLS 1.3", func(t *testing.T) {
		so := f.serverOptions()
		so.EnabledProtocols = tls12
		write(t, "MinProtocol = TLSv1.3\n")
		client, server := newStreams(t)
		err, serverErr := authenticate(t, client, server, f.clientOptions(), so)
		assert.Equal(t, tls.AlertError(70), authenticationError(t, err).RemoteAlert)
		assert.Error(t, serverErr)
	})
	t.Run("a minimum does not widen", func(t *testing.T) {
		co := f.clientOptions()
		co.EnabledProtocols = tls10
		write(t, "MinProtocol = TLSv1\n")
		client, server := newStreams(t)
		err, _ := authenticate(t, client, server, co, f.serverOptions())
		assert.Equal(t, tls.AlertError(70), authenticationError(t, err).RemoteAlert)
	})
	t.Run("nothing is left", func(t *testing.T) {
		for _, system := range []string{"MaxProtocol = TLSv1.1\n", "MinProtocol = TLSv1.3\nMaxProtocol = TLSv1.2\n", "MaxProtocol = SSLv3\n"} {
			write(t, system)
			client, _ := newStreams(t)
			err := client.AuthenticateAsClient(t.Context(), f.clientOptions())
			assert.ErrorContains(t, err, "administrator's OpenSSL configuration", system)
		}
	})
	t.Run("does not touch what is asked for", func(t *testing.T) {
		co, so := f.clientOptions(), f.serverOptions()
		co.EnabledProtocols, so.EnabledProtocols = tls13, tls13
		write(t, "MaxProtocol = TLSv1.2\n")
		client, _ := newPair(t, co, so)
		assert.Equal(t, tls13, client.Protocol())
	})
	t.Run("missing and broken files", func(t *testing.T) {
		for _, text := range []string{"", "[broken\n", "openssl_conf = nowhere\n"} {
			file := filepath.Join(t.TempDir(), "openssl.cnf")
			if text != "" {
				require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			}
			t.Setenv("OPENSSL_CONF", file)
			client, _ := newPair(t, f.clientOptions(), f.serverOptions())
			assert.Equal(t, tls13, client.Protocol())
		}
	})
	t.Run("GODEBUG counts, and is narrowed too", func(t *testing.T) {
		t.Setenv("GODEBUG", "tls10server=1")
		co := f.clientOptions()
		co.EnabledProtocols = tls10 | tls11
		client, _ := newPair(t, co, f.serverOptions())
		assert.Equal(t, tls11, client.Protocol())

		write(t, "MinProtocol = TLSv1.1\n")
		client, _ = newPair(t, co, f.serverOptions())
		assert.Equal(t, tls11, client.Protocol())
		old := f.clientOptions()
		old.EnabledProtocols = tls10
		client, server := newStreams(t)
		_, serverErr := authenticate(t, client, server, old, f.serverOptions())
		assert.Error(t, serverErr)

		write(t, "MinProtocol = TLSv1.2\n")
		client, server = newStreams(t)
		err, _ := authenticate(t, client, server, co, f.serverOptions())
		assert.Equal(t, tls.AlertError(70), authenticationError(t, err).RemoteAlert)
	})
}

// TestEverySuite negotiates every suite of crypto/tls that two ends of it can agree on.
func TestEverySuite(t *testing.T) {
	skipInFIPSMode(t, "suites but those of AES-GCM")
	f := newFixture(t)
	ecdsa := f.server
	rsa := f.intermediate.Issue(t, serverName, testpki.RSA(2048))
	const (
		none = sslstream.CipherAlgorithmNone
		aes1 = sslstream.CipherAlgorithmAES128
		aes2 = sslstream.CipherAlgorithmAES256
		des3 = sslstream.CipherAlgorithmTripleDES
		rc4  = sslstream.CipherAlgorithmRC4
		cha  = sslstream.CipherAlgorithmChaCha20
		sha1 = sslstream.HashAlgorithmSHA1
		sha2 = sslstream.HashAlgorithmSHA256
		sha3 = sslstream.HashAlgorithmSHA384
		ecdh = sslstream.ExchangeAlgorithmECDHE
		rsak = sslstream.ExchangeAlgorithmRSA
		mlk  = sslstream.ExchangeAlgorithmHybridMLKEM
	)
	type want struct {
		cipher         sslstream.CipherAlgorithm
		cipherStrength int
		hash           sslstream.HashAlgorithm
		hashStrength   int
		exchange       sslstream.ExchangeAlgorithm
		exchangeBits   int
	}
	wants := map[uint16]want{
		tls.TLS_RSA_WITH_RC4_128_SHA:                      {rc4, 128, sha1, 160, rsak, 2048},
		tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA:                 {des3, 168, sha1, 160, rsak, 2048},
		tls.TLS_RSA_WITH_AES_128_CBC_SHA:                  {aes1, 128, sha1, 160, rsak, 2048},
		tls.TLS_RSA_WITH_AES_256_CBC_SHA:                  {aes2, 256, sha1, 160, rsak, 2048},
		tls.TLS_RSA_WITH_AES_128_CBC_SHA256:               {aes1, 128, sha2, 256, rsak, 2048},
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256:               {aes1, 128, sha2, 256, rsak, 2048},
		tls.TLS_RSA_WITH_AES_256_GCM_SHA384:               {aes2, 256, sha3, 384, rsak, 2048},
		tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA:              {rc4, 128, sha1, 160, ecdh, 255},
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA:          {aes1, 128, sha1, 160, ecdh, 255},
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA:          {aes2, 256, sha1, 160, ecdh, 255},
		tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA:                {rc4, 128, sha1, 160, ecdh, 255},
		tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA:           {des3, 168, sha1, 160, ecdh, 255},
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA:            {aes1, 128, sha1, 160, ecdh, 255},
		tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA:            {aes2, 256, sha1, 160, ecdh, 255},
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256:       {aes1, 128, sha2, 256, ecdh, 255},
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256:         {aes1, 128, sha2, 256, ecdh, 255},
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:         {aes1, 128, sha2, 256, ecdh, 255},
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       {aes1, 128, sha2, 256, ecdh, 255},
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:         {aes2, 256, sha3, 384, ecdh, 255},
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:       {aes2, 256, sha3, 384, ecdh, 255},
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:   {cha, 256, sha2, 256, ecdh, 255},
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: {cha, 256, sha2, 256, ecdh, 255},
		tls.TLS_AES_128_GCM_SHA256:                        {aes1, 128, sha2, 256, mlk, 255},
		tls.TLS_AES_256_GCM_SHA384:                        {aes2, 256, sha3, 384, mlk, 255},
		tls.TLS_CHACHA20_POLY1305_SHA256:                  {cha, 256, sha2, 256, mlk, 255},
	}
	check := func(t *testing.T, s *sslstream.Stream, suite uint16) {
		t.Helper()
		w := wants[suite]
		assert.Equal(t, suite, s.NegotiatedCipherSuite())
		assert.Equal(t, w, want{s.CipherAlgorithm(), s.CipherStrength(), s.HashAlgorithm(), s.HashStrength(), s.KeyExchangeAlgorithm(), s.KeyExchangeStrength()})
		assert.Equal(t, s.KeyExchangeAlgorithm() == rsak, s.NegotiatedGroup() == 0)
		_ = none
	}
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		t.Run(suite.Name, func(t *testing.T) {
			require.Contains(t, wants, suite.ID, "a suite that the table does not know")
			if suite.SupportedVersions[0] == tls.VersionTLS13 {
				// crypto/tls picks by itself: AES-128 here, ChaCha20 without AES hardware, and AES-256 only with
				// a peer that offers nothing else (interop has that).
				if suite.ID == tls.TLS_AES_256_GCM_SHA384 {
					t.Skip("two ends of crypto/tls never agree on it: see interop")
				}
				if suite.ID == tls.TLS_CHACHA20_POLY1305_SHA256 && os.Getenv("SSLSTREAM_NO_AES") == "" {
					if runtime.GOARCH != "amd64" {
						t.Skip("needs a processor whose AES can be turned off by GODEBUG")
					}
					exe, err := os.Executable()
					require.NoError(t, err)
					cmd := exec.Command(exe, "-test.run=^TestEverySuite$/^"+suite.Name+"$", "-test.v")
					cmd.Env = append(os.Environ(), "SSLSTREAM_NO_AES=1", "GODEBUG=cpu.aes=off,cpu.pclmulqdq=off")
					out, err := cmd.CombinedOutput()
					require.NoError(t, err, "%s", out)
					require.Contains(t, string(out), "--- PASS: TestEverySuite/"+suite.Name)
					return
				}
			}
			for _, cert := range []tls.Certificate{ecdsa, rsa} {
				co, so := f.clientOptions(), f.serverOptions()
				so.ServerCertificate = &cert
				co.CipherSuites, so.CipherSuites = []uint16{suite.ID}, []uint16{suite.ID}
				co.EnabledProtocols = tls12
				if suite.SupportedVersions[0] == tls.VersionTLS13 {
					co.EnabledProtocols = tls13
				}
				client, server := newStreams(t)
				err, serverErr := authenticate(t, client, server, co, so)
				if err != nil { // the suite is for the other kind of key
					require.NotEqual(t, co.EnabledProtocols, tls13)
					continue
				}
				require.NoError(t, serverErr)
				exchange(t, client, server)
				check(t, client, suite.ID)
				check(t, server, suite.ID)
				return
			}
			t.Error("not negotiated with any key")
		})
	}
	assert.Len(t, wants, len(tls.CipherSuites())+len(tls.InsecureCipherSuites()))
}

// TestSuitesOfKnobs has a client with crypto/tls's own choice of suites, which GODEBUG widens.
func TestSuitesOfKnobs(t *testing.T) {
	skipInFIPSMode(t, "suites but those of AES-GCM")
	f := newFixture(t)
	cert := f.intermediate.Issue(t, serverName, rsaKey)
	for _, tc := range []struct {
		knobs  string
		suite  uint16
		agreed bool
	}{
		{"", tls.TLS_RSA_WITH_AES_128_GCM_SHA256, false},
		{"tlsrsakex=1", tls.TLS_RSA_WITH_AES_128_GCM_SHA256, true},
		{"", tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, false},
		{"tls3des=1", tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, true},
	} {
		t.Run(tc.knobs+"/"+tls.CipherSuiteName(tc.suite), func(t *testing.T) {
			t.Setenv("GODEBUG", tc.knobs)
			co, so := f.clientOptions(), f.serverOptions()
			co.EnabledProtocols = tls12
			so.ServerCertificate, so.CipherSuites = &cert, []uint16{tc.suite}
			client, server := newStreams(t)
			err, serverErr := authenticate(t, client, server, co, so)
			if !tc.agreed {
				assert.Equal(t, tls.AlertError(40), authenticationError(t, err).RemoteAlert, "handshake_failure")
				assert.Error(t, serverErr)
				return
			}
			require.NoError(t, errors.Join(err, serverErr))
			assert.Equal(t, tc.suite, client.NegotiatedCipherSuite())
		})
	}
}

func TestGroups(t *testing.T) {
	skipInFIPSMode(t, "X25519")
	f := newFixture(t)
	for _, tc := range []struct {
		group    tls.CurveID
		exchange sslstream.ExchangeAlgorithm
		bits     int
	}{
		{tls.X25519, sslstream.ExchangeAlgorithmECDHE, 255},
		{tls.CurveP256, sslstream.ExchangeAlgorithmECDHE, 256},
		{tls.CurveP384, sslstream.ExchangeAlgorithmECDHE, 384},
		{tls.CurveP521, sslstream.ExchangeAlgorithmECDHE, 521},
		{tls.X25519MLKEM768, sslstream.ExchangeAlgorithmHybridMLKEM, 255},
		{tls.SecP256r1MLKEM768, sslstream.ExchangeAlgorithmHybridMLKEM, 256},
		{tls.SecP384r1MLKEM1024, sslstream.ExchangeAlgorithmHybridMLKEM, 384},
	} {
		for _, v := range versions {
			if v.protocol == tls12 && tc.exchange == sslstream.ExchangeAlgorithmHybridMLKEM {
				continue
			}
			t.Run(tc.group.String()+"/"+v.name, func(t *testing.T) {
				co, so := f.clientOptions(), f.serverOptions()
				co.EnabledProtocols = v.protocol
				co.TLSConfig = &tls.Config{CurvePreferences: []tls.CurveID{tc.group}}
				client, server := newPair(t, co, so)
				for _, s := range []*sslstream.Stream{client, server} {
					assert.Equal(t, tc.group, s.NegotiatedGroup())
					assert.Equal(t, tc.exchange, s.KeyExchangeAlgorithm())
					assert.Equal(t, tc.bits, s.KeyExchangeStrength())
				}
			})
		}
	}
}

func TestCipherSuitesDecideAboutTLS13(t *testing.T) {
	f := newFixture(t)
	const gcm = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
	for _, tc := range []struct {
		name           string
		client, server []uint16
		want           sslstream.Protocols
		refusedBy      string
	}{
		{"all", nil, nil, tls13, ""},
		{"client: none of TLS 1.3", []uint16{gcm}, nil, tls12, ""},
		{"server: none of TLS 1.3", nil, []uint16{gcm}, tls12, ""},
		{"client: TLS 1.3 only", []uint16{tls.TLS_AES_128_GCM_SHA256}, nil, tls13, ""},
		{"both kinds", []uint16{gcm, tls.TLS_AES_128_GCM_SHA256}, nil, tls13, ""},
		{"client: another one of TLS 1.3", []uint16{gcm, tls.TLS_AES_256_GCM_SHA384}, nil, 0, "client"},
		{"server: another one of TLS 1.3", nil, []uint16{gcm, tls.TLS_AES_256_GCM_SHA384}, 0, "server"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			co, so := f.clientOptions(), f.serverOptions()
			co.CipherSuites, so.CipherSuites = tc.client, tc.server
			client, server := newStreams(t)
			err, serverErr := authenticate(t, client, server, co, so)
			switch tc.refusedBy {
			case "":
				require.NoError(t, errors.Join(err, serverErr))
				assert.Equal(t, tc.want, client.Protocol())
			case "client":
				assert.ErrorContains(t, err, "TLS_AES_128_GCM_SHA256, is not one of the CipherSuites")
				authenticationError(t, err)
			case "server":
				assert.ErrorContains(t, serverErr, "TLS_AES_128_GCM_SHA256, is not one of the CipherSuites")
				authenticationError(t, serverErr)
			}
		})
	}
}

func TestApplicationProtocols(t *testing.T) {
	f := newFixture(t)
	for _, tc := range []struct {
		name           string
		client, server []string
		want           string
		refused        bool
	}{
		{"none", nil, nil, "", false},
		{"the server's order counts", []string{"a", "b"}, []string{"b", "a"}, "b", false},
		{"client only", []string{"a"}, nil, "", false},
		{"server only", nil, []string{"a"}, "", false},
		{"no overlap", []string{"a"}, []string{"b"}, "", true},
		{"no overlap, which crypto/tls lets pass", []string{"http/1.1"}, []string{"h2"}, "", true},
		{"no overlap, with odd names", []string{"\x00", "http/1.1"}, []string{"h2"}, "", true},
		{"no overlap, longer lists", []string{"http/1.1", "x"}, []string{"h2", "y"}, "", true},
	} {
		for _, v := range versions {
			t.Run(tc.name+"/"+v.name, func(t *testing.T) {
				co, so := f.clientOptions(), f.serverOptions()
				co.EnabledProtocols = v.protocol
				co.ApplicationProtocols, so.ApplicationProtocols = tc.client, tc.server
				client, server := newStreams(t)
				err, serverErr := authenticate(t, client, server, co, so)
				if tc.refused {
					assert.Equal(t, tls.AlertError(120), authenticationError(t, err).RemoteAlert, "no_application_protocol")
					assert.ErrorContains(t, serverErr, "application protocol")
					return
				}
				require.NoError(t, errors.Join(err, serverErr))
				assert.Equal(t, tc.want, client.NegotiatedApplicationProtocol())
				assert.Equal(t, tc.want, server.NegotiatedApplicationProtocol())
			})
		}
	}
}

func TestCertificateKeys(t *testing.T) {
	f := newFixture(t)
	for name, opt := range map[string]testpki.Option{
		"RSA 2048": testpki.RSA(2048), "P-256": testpki.ECDSA(t, elliptic.P256()), "P-384": testpki.ECDSA(t, elliptic.P384()),
		"P-521": testpki.ECDSA(t, elliptic.P521()), "Ed25519": testpki.Ed25519(t),
	} {
		for _, v := range versions {
			t.Run(name+"/"+v.name, func(t *testing.T) {
				co, so := f.mutual()
				co.EnabledProtocols = v.protocol
				own := f.intermediate.Issue(t, serverName, opt, testpki.EKU(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth))
				co.ClientCertificates, so.ServerCertificate = []tls.Certificate{own}, &own
				client, server := newPair(t, co, so)
				exchange(t, client, server)
				assert.True(t, client.IsMutuallyAuthenticated())
			})
		}
	}
}
