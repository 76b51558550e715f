# shellcheck shell=bash
# Set up what a checkout needs on this machine. Sourced by tools/quickstart, tests/run and .ci/run.
#
# Nothing is installed outside the checkout but Debian packages that are missing, and those only as
# root; otherwise the script says which package to ask for. Python packages go into .venv, a virtual
# environment in the checkout. Stamps in it say for which folder and which requirements it was
# filled: it is refreshed when setup.cfg asks for something else, and made anew when it came from
# another place or its Python is gone.
#
#   need PROGRAM PACKAGE…      install the Debian packages when the program is missing
#   make_venv run EXTRA…       install the run-time requirements, and those of the extras named
#
# Set here: checkout, venv, python (the environment's). Expected: program, the name to speak under.
# Talk goes to standard error.

program=${program:-setup}
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$checkout/.venv
python=$venv/bin/python

say() {
    printf '%s: %s\n' "$program" "$*" >&2
}

die() {
    say "$@"
    exit 1
}

# ---- Debian packages ----

may_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null
}

# install PACKAGE…: the lists of packages are fetched once.
install() {
    local output
    if [ -z "${lists_fetched:-}" ]; then
        say "fetching the lists of Debian packages (apt-get update)"
        output=$(apt-get update -qq 2>&1) || say "apt-get update failed: $output"
        lists_fetched=yes
    fi
    say "installing $* (apt-get install)"
    output=$(DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
        2>&1 < /dev/null) || {
        say "apt-get install $* failed: $output"
        return 1
    }
}

# need PROGRAM PACKAGE…: false when the program stays missing.
need() {
    local wanted=$1
    shift
    if PATH=$PATH:/usr/sbin:/sbin command -v "$wanted" > /dev/null; then
        return 0
    elif may_install; then
        install "$@"
    else
        say "$wanted is missing; ask for: apt-get install $*"
        return 1
    fi
}

# ---- the virtual environment ----

# find_python: print the path of a Python >= 3.9, the machine's default if it will do.
find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2> /dev/null; then
            "$name" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))'
            return
        fi
    done
    return 1
}

# wanted EXTRA: print what the stamp of an extra (or of `run`) must hold.
wanted() {
    printf '%s\n' "$venv"
    "$python" - "$checkout/setup.cfg" "$1" <<'PY'
import configparser
import sys

settings = configparser.ConfigParser(interpolation=None)
settings.read(sys.argv[1], encoding="utf-8")
if sys.argv[2] == "run":
    print(settings["options"]["install_requires"].strip())
else:
    print(settings["options.extras_require"][sys.argv[2]].strip())
PY
}

# make_venv run EXTRA…
make_venv() {
    local base extra missing=()
    unset PYTHONHOME PYTHONPATH
    if ! base=$(find_python); then
        may_install && install python3 python3-venv || true
        base=$(find_python) ||
            die "Python 3.9 or later is missing; ask for: apt-get install python3 python3-venv"
    fi
    remove_foreign_venv
    [ -d "$venv" ] || make_empty_venv "$base"

    for extra; do
        if [ "$(wanted "$extra")" != "$(cat "$venv/.hpc_batch-$extra" 2> /dev/null)" ]; then
            missing+=("$extra")
        fi
    done
    [ ${#missing[@]} = 0 ] || fill_venv "${missing[@]}"
}

# remove_foreign_venv: what was copied or moved here from elsewhere, or whose Python is gone.
remove_foreign_venv() {
    local made_for
    [ -e "$venv" ] || [ -L "$venv" ] || return 0
    if [ ! -f "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv" 2> /dev/null)" ]; then
        die ".venv is there, but is no virtual environment; move it away and repeat"
    fi
    made_for=$(head -n 1 "$venv/.hpc_batch-run" 2> /dev/null) || true
    if [ "${made_for:-$venv}" != "$venv" ] || ! "$python" -m pip --version > /dev/null 2>&1; then
        say "the virtual environment in .venv does not work here; making it anew"
        rm -rf -- "$venv"
    fi
}

# make_empty_venv PYTHON
make_empty_venv() {
    local package test='import ensurepip, venv'
    if ! "$1" -c "$test" 2> /dev/null; then
        # Debian keeps these in a package of their own, one for each version of Python.
        package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        may_install && install "$package" || true
        "$1" -c "$test" 2> /dev/null ||
            die "$1 cannot make a virtual environment; ask for: apt-get install $package"
    fi
    say "making a virtual environment in .venv with $1"
    "$1" -m venv "$venv" >&2 || {
        rm -rf -- "$venv"
        die "$1 -m venv failed (see above)"
    }
}

# fill_venv EXTRA…
fill_venv() {
    local extra output
    say "installing Python packages into .venv (pip)"
    # A user's own settings for pip may name another place to install to.
    output=$(for extra; do wanted "$extra" | tail -n +2; done |
        env -u PIP_TARGET -u PIP_PREFIX PIP_USER=0 "$python" -m pip install --quiet \
            --disable-pip-version-check --no-input --requirement /dev/stdin 2>&1) || {
        printf '%s\n' "$output" >&2
        die "pip could not install the packages (see above). It needs the network or a mirror:" \
            "set https_proxy, or PIP_INDEX_URL, or PIP_NO_INDEX=1 and PIP_FIND_LINKS=FOLDER; repeat"
    }
    for extra; do wanted "$extra" > "$venv/.hpc_batch-$extra"; done
}
