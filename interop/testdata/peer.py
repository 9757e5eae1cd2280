"""A peer of Python's ssl: echoes as a server, checks the echo as a client, and prints what it knows of each session."""
import socket, ssl, sys

role, port, version, ca, cert, key, mutual, size, sessions = sys.argv[1:10]
port, mutual, size, sessions = int(port), mutual == "true", int(size), int(sessions)
version = ssl.TLSVersion.TLSv1_3 if version == "1.3" else ssl.TLSVersion.TLSv1_2
pattern = bytes((i * 31 + 7) & 255 for i in range(size))


def context(protocol):
    c = ssl.SSLContext(protocol)
    c.minimum_version = c.maximum_version = version
    c.load_verify_locations(ca)
    c.set_alpn_protocols(["echo"])
    if role == "server" or mutual:
        c.load_cert_chain(cert, key)
    return c


def name(s):
    peer = s.getpeercert()
    return dict(x[0] for x in peer["subject"])["commonName"] if peer else ""


def about(s):
    """What is known of a session, which is forgotten once it ends."""
    return " ".join(["session", "protocol=" + s.version(), "cipher=" + s.cipher()[0], "peer=" + name(s),
                     "resumed=" + str(bool(s.session_reused)).lower(), "alpn=" + str(s.selected_alpn_protocol())])


def report(said, echoed, end):
    print(said, "echoed=%d" % echoed, "end=" + end, flush=True)


def unwrap(s):
    try:
        s.unwrap()
        return "close_notify"
    except (ssl.SSLError, OSError) as e:
        return type(e).__name__


if role == "client":
    c = context(ssl.PROTOCOL_TLS_CLIENT)
    session = None
    for _ in range(sessions):
        s = c.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="server.example", session=session)
        s.sendall(pattern)
        got = b""
        while len(got) < size:
            got += s.recv(65536)
        if got != pattern:
            sys.exit("the echo is not what was sent")
        session = s.session
        said = about(s)
        report(said, len(got), unwrap(s))
else:
    c = context(ssl.PROTOCOL_TLS_SERVER)
    names = []
    c.sni_callback = lambda s, n, _: names.append(n)
    if mutual:
        c.verify_mode = ssl.CERT_REQUIRED
    l = socket.create_server(("127.0.0.1", port))
    print("ready", flush=True)
    for _ in range(sessions):
        s = c.wrap_socket(l.accept()[0], server_side=True, suppress_ragged_eofs=False)
        echoed, end, said = 0, "close_notify", about(s)
        try:
            while data := s.recv(65536):
                s.sendall(data)
                echoed += len(data)
        except ssl.SSLEOFError:
            end = "eof"
        print("sni=" + str(names[-1]), flush=True)
        report(said, echoed, end)
        unwrap(s)
        s.close()
