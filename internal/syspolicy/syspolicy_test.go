package syspolicy

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCurrentChoosesFile(t *testing.T) {
	dir := t.TempDir()
	first := writeFile(t, toCommands+"MinProtocol = TLSv1.1\n", dir, "first.cnf")
	second := writeFile(t, toCommands+"MinProtocol = TLSv1.2\n", dir, "second.cnf")
	named := writeFile(t, toCommands+"MinProtocol = TLSv1.3\n", dir, "named.cnf")
	broken := writeFile(t, toCommands+"MinProtocol = TLSv1.3\n[", dir, "broken.cnf")
	missing := filepath.Join(dir, "missing.cnf")

	tests := []struct {
		name     string
		variable *string // of OPENSSL_CONF, nil when not set
		usual    []string
		want     Range
	}{
		{"variable", &named, []string{first, second}, Range{Min: tls.VersionTLS13}},
		{"variable names a missing file", &missing, []string{first, second}, Range{}},
		{"variable names a broken file", &broken, []string{first, second}, Range{}},
		{"variable names a directory", &dir, []string{first, second}, Range{}},
		{"variable is empty", new(string), []string{first, second}, Range{}},
		{"first usual place", nil, []string{first, second}, Range{Min: tls.VersionTLS11}},
		{"second usual place", nil, []string{missing, second, first}, Range{Min: tls.VersionTLS12}},
		{"broken file hides the others", nil, []string{broken, second}, Range{}},
		{"nothing in the usual places", nil, []string{missing}, Range{}},
		{"no usual places", nil, nil, Range{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			forget(t)
			usual := usualFiles
			usualFiles = tt.usual
			t.Cleanup(func() { usualFiles = usual })
			unsetenv(t, "OPENSSL_CONF")
			if tt.variable != nil {
				if *tt.variable == "" && runtime.GOOS == "windows" {
					t.Skip("Windows does not know empty environment variables")
				}
				t.Setenv("OPENSSL_CONF", *tt.variable)
			}
			assert.Equal(t, tt.want, Current())
			assert.Equal(t, tt.want, Current(), "from the cache")
		})
	}
}

func TestCurrentRelativeFile(t *testing.T) {
	dir := t.TempDir()
	age(t, writeFile(t, toCommands+"MinProtocol = TLSv1.2\n", dir, "a", "openssl.cnf"),
		writeFile(t, toCommands+"MinProtocol = TLSv1.3\n", dir, "b", "openssl.cnf"))
	useConfig(t, "openssl.cnf")

	t.Chdir(filepath.Join(dir, "a"))
	assert.Equal(t, Range{Min: tls.VersionTLS12}, Current())
	t.Chdir(filepath.Join(dir, "b"))
	assert.Equal(t, Range{Min: tls.VersionTLS13}, Current())
}

func TestCurrentElevated(t *testing.T) {
	dir := t.TempDir()
	useConfig(t, writeFile(t, toCommands+"MinProtocol = TLSv1.2\n", dir, "named.cnf"))
	usual, wasElevated := usualFiles, elevated
	t.Cleanup(func() { usualFiles, elevated = usual, wasElevated })
	usualFiles = []string{writeFile(t, toCommands+"MinProtocol = TLSv1.3\n", dir, "usual.cnf")}

	elevated = true
	assert.Equal(t, Range{Min: tls.VersionTLS13}, Current())
	elevated = false
	assert.Equal(t, Range{Min: tls.VersionTLS12}, Current())
}

func TestUsualFiles(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "freebsd", "openbsd", "windows"} {
		t.Run(goos, func(t *testing.T) {
			files := usualFilesOn(goos)
			require.NotEmpty(t, files)
			for _, file := range files {
				assert.Equal(t, goos == "windows", strings.HasPrefix(file, `C:\Program Files`), file)
				assert.Equal(t, goos != "windows", strings.HasPrefix(file, "/"), file)
				assert.True(t, strings.HasSuffix(file, "openssl.cnf"), file)
			}
		})
	}
	assert.Equal(t, usualFilesOn(runtime.GOOS), usualFiles)
}

func TestCurrentOfThisSystem(t *testing.T) {
	const debian = "/etc/ssl/openssl.cnf"
	if _, err := os.Stat(debian); err != nil {
		t.Skipf("no %s here: %v", debian, err)
	}
	t.Run("named", func(t *testing.T) {
		useConfig(t, debian)
		assert.NotPanics(t, func() { Current() })
	})
	t.Run("found", func(t *testing.T) {
		forget(t)
		unsetenv(t, "OPENSSL_CONF")
		assert.NotPanics(t, func() { Current() })
	})
}

// redHatConfig is the skeleton of the openssl.cnf of Red Hat Enterprise Linux;
// BACKEND is the file that crypto-policies provides.
const redHatConfig = `# OpenSSL example configuration file.
.include BACKEND/does-not-exist.cnf

HOME			= .
openssl_conf = openssl_init
oid_section = new_oids

[ new_oids ]
tsa_policy1 = 1.2.3.4.1

[openssl_init]
providers = provider_sect
# Load default TLS policy configuration
ssl_conf = ssl_module
alg_section = evp_properties

[ evp_properties ]

[provider_sect]
default = default_sect

[default_sect]
activate = 1

[ ssl_module ]

system_default = crypto_policy

[ crypto_policy ]

.include = BACKEND

####################################################################
[ ca ]
default_ca	= CA_default		# The default ca section

[ CA_default ]
dir		= /etc/pki/CA		# Where everything is kept
certs		= $dir/certs		# Where the issued certs are kept
private_key	= $dir/private/cakey.pem # The private key

[ req ]
string_mask = utf8only
commonName_max	= 64
`

// redHatBackend is a back-end file of crypto-policies.
const redHatBackend = `CipherString = @SECLEVEL=2:kEECDH:kRSA:kEDH:kPSK:-aDSS:-3DES:!DES:!RC4:!MD5:!eNULL:!aNULL
Ciphersuites = TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256
TLS.MinProtocol = TLSv1.2
TLS.MaxProtocol = TLSv1.3
DTLS.MinProtocol = DTLSv1.2
DTLS.MaxProtocol = DTLSv1.2
SignatureAlgorithms = ECDSA+SHA256:ECDSA+SHA384:RSA-PSS+SHA256:rsa_pss_rsae_sha256:RSA+SHA256
Options = RHNoEnforceEMSinFIPS
`

func TestCurrentRedHat(t *testing.T) {
	dir := t.TempDir()
	backend := writeFile(t, redHatBackend, dir, "back-ends", "opensslcnf.config")
	main := strings.ReplaceAll(redHatConfig, "BACKEND", filepath.ToSlash(backend))
	useConfig(t, writeFile(t, main, dir, "openssl.cnf"))
	assert.Equal(t, Range{tls.VersionTLS12, tls.VersionTLS13}, Current())
}
