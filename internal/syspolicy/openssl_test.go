package syspolicy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestAgainstOpenSSL asks the openssl command which versions it offers with a
// configuration, by letting s_client connect to servers that speak one version
// each. ("openssl ciphers" would be quicker, but sets both limits itself.)
func TestAgainstOpenSSL(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	command := openSSLCommand(t)
	certificate := newCertificate(t)
	unsetenv(t, "OPENSSL_CONF_INCLUDE")

	// What this openssl can do at all; distributions leave versions out.
	empty := writeFile(t, "", t.TempDir(), "empty.cnf")
	able := offeredVersions(t, command, empty, certificate)
	if !slices.Contains(able, tls.VersionTLS12) || !slices.Contains(able, tls.VersionTLS13) {
		t.Skipf("%s connects with versions %x only", command, able)
	}

	tests := []struct {
		name  string
		files map[string]string // DIR stands for where they are
	}{
		{"minimum", map[string]string{"openssl.cnf": minTLS12}},
		{"minimum and maximum", map[string]string{"openssl.cnf": toCommands + "MinProtocol = TLSv1.1\nMaxProtocol = TLSv1.2\n"}},
		{"only TLS 1.3", map[string]string{"openssl.cnf": minTLS13}},
		{"nothing left", map[string]string{"openssl.cnf": toCommands + "MaxProtocol = SSLv3\n"}},
		{"Red Hat", map[string]string{
			"openssl.cnf": strings.ReplaceAll(redHatConfig, "BACKEND", "DIR/backend"),
			"backend":     strings.ReplaceAll(redHatBackend, "TLSv1.3", "TLSv1.2"),
		}},
		{"no such command section", map[string]string{"openssl.cnf": minTLS13 + "[contexts]\nserver = nowhere\n"}},
		{"unknown value", map[string]string{"openssl.cnf": toCommands + "A.MinProtocol = TLSv1.3\nB.MinProtocol = TLSv9\n"}},
		{"unknown value, same name", map[string]string{"openssl.cnf": minTLS13 + "MinProtocol = TLSv9\n"}},
		{"prefix with a dot", map[string]string{"openssl.cnf": toCommands + "a.b.MinProtocol = TLSv1.3\n"}},
		{"None lifts a limit", map[string]string{"openssl.cnf": minTLS13 + "DTLS.MinProtocol = None\n"}},
		{"syntax", map[string]string{"openssl.cnf": "\xef\xbb\xbfv = 1.\\\n 3 # c\n" + toCommands +
			"M\\\naxProtocol = 'TLSv1'\".\"\\2 # \\\nMinProtocol = TLSv1.3\n"}},
		{"variables", map[string]string{"openssl.cnf": "v = TLSv1\n[s]\nw = .2\n[default]\n" + toCommands + "MaxProtocol = $v${s::w}\n"}},
		{"section after include", map[string]string{
			"openssl.cnf": toCommands + "[other]\n.include DIR/x\nMaxProtocol = TLSv1.2\n", "x": "[commands]\n",
		}},
		{"directory within directory", map[string]string{
			"openssl.cnf": toCommands + ".include = DIR/d\n",
			"d/x.CONF":    ".include DIR/e\n1.MaxProtocol = TLSv1.2\n", "e/y.cnf": "2.MaxProtocol = TLSv1.1\n",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			writeOldFiles(t, dir, tt.files)
			path := filepath.Join(dir, "openssl.cnf")
			useConfig(t, path)

			allowed := Current()
			want := slices.DeleteFunc(slices.Clone(able), func(version uint16) bool {
				return version < allowed.Min || allowed.Max != 0 && version > allowed.Max
			})
			assert.ElementsMatch(t, want, offeredVersions(t, command, path, certificate))
		})
	}
}

// openSSLCommand returns the path of an openssl that behaves as ours does.
func openSSLCommand(t *testing.T) string {
	t.Helper()
	command, err := exec.LookPath("openssl")
	if err != nil {
		t.Skipf("openssl is not installed: %v", err)
	}
	version, err := exec.CommandContext(t.Context(), command, "version").Output()
	if err != nil {
		t.Skipf("openssl does not run: %v", err)
	}
	name, number, _ := strings.Cut(string(version), " ")
	if name != "OpenSSL" || strings.HasPrefix(number, "0.") || strings.HasPrefix(number, "1.") {
		t.Skipf("not OpenSSL 3 or later: %s", version)
	}
	return command
}

// newCertificate makes a certificate that nobody needs to trust.
func newCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// offeredVersions returns the versions that openssl connects with when config
// is its configuration.
func offeredVersions(t *testing.T, command, config string, certificate tls.Certificate) []uint16 {
	t.Helper()
	var offered []uint16
	for version := uint16(tls.VersionTLS10); version <= tls.VersionTLS13; version++ {
		if connects(t, command, config, &tls.Config{
			Certificates: []tls.Certificate{certificate},
			MinVersion:   version,
			MaxVersion:   version,
		}) {
			offered = append(offered, version)
		}
	}
	return offered
}

// connects reports whether "openssl s_client" gets through a handshake with a
// server of that configuration.
func connects(t *testing.T, command, config string, server *tls.Config) bool {
	t.Helper()
	const patience = 20 * time.Second
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(patience))
		done <- tls.Server(conn, server).Handshake()
	}()

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// Without the cipher string, the default security level would forbid
	// TLS 1.0 and 1.1 whatever the limits are.
	client := exec.CommandContext(ctx, command, "s_client", "-connect", listener.Addr().String(),
		"-cipher", "DEFAULT:@SECLEVEL=0")
	client.Env = append(os.Environ(), "OPENSSL_CONF="+config)
	output, clientErr := client.CombinedOutput()
	_ = listener.Close() // lets go of Accept if nobody came
	require.NoError(t, ctx.Err(), "openssl hangs: %s", output)

	serverErr := <-done
	t.Logf("version %x: client %v, server %v", server.MaxVersion, clientErr, serverErr)
	return serverErr == nil
}
