#!/usr/bin/env bash
# Checks model/collect.pml and model/packs.pml: bash model/run.sh
# Each complete protocol must have no errors in a complete search that gets to
# every statement, and each variant without one part must break its property.
# It needs spin, gcc and up to 4 GB of memory, and takes a few minutes.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

model=collect.pml

# search NAME FLAG... leaves the answer of the search of $model in $work/NAME.
search() {
	local dir=$work/$1.d
	mkdir "$dir"
	# -o3: no merging of statements, or not all are told to be reached.
	(cd "$dir" && spin -a -o3 "${@:2}" "$OLDPWD/$model" && gcc -O2 -w -DSAFETY -DCOLLAPSE -DMEMLIM=4000 -o pan pan.c) >"$work/$1" 2>&1 ||
		{ cat "$work/$1"; exit 1; }
	(cd "$dir" && ./pan -m20000000) >"$work/$1" 2>&1 || true
	rm -r "$dir"
}

# row NAME WANT GOT
row() {
	local states seconds verdict=ok
	states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' "$work/$1")
	seconds=$(sed -n 's/^pan: elapsed time \([0-9.]*\) seconds/\1/p' "$work/$1")
	[ "$2" = "$3" ] || { verdict=FAILED failed=1; }
	printf '%-28s %-10s %-10s %12s %8s  %s\n' "$1" "$2" "$3" "${states:-?}" "${seconds:-?}" "$verdict"
}

# broken NAME: the property that the search found broken, or what else it says.
broken() {
	local line
	line=$(sed -n 's/^pan:1: assertion violated *//p' "$work/$1")
	case $line in
	*late*) echo REPAIR ;;
	*promised*) echo PROMISE ;;
	*before*) echo READ ;;
	*file*) echo BYTES ;;
	*deleted*) echo GONE ;;
	*acked*'link['*) echo SAFE ;;
	*link*) echo DANGLING ;;
	*acked*) echo QUIET ;;
	?*) echo "$line" ;;
	*)
		if grep -q 'errors: 0$' "$work/$1" && ! grep -Eq 'too small|not completed|out of memory|reached -DMEMLIM' "$work/$1"; then
			echo none
		else
			echo incomplete
		fi
		;;
	esac
}

printf '%-28s %-10s %-10s %12s %8s\n' '' 'breaks' 'found' 'states' 'seconds'
complete="one-repository two-repositories two-collectors-one two-collectors-two loss-one loss-two"
search one-repository -DDANGLING -DSAME
search two-repositories -DDANGLING
search two-collectors-one -DDANGLING -DC=2 -DSAME
search two-collectors-two -DDANGLING -DC=2
search loss-one -DDANGLING -DLOSS -DSAME
search loss-two -DDANGLING -DLOSS
for name in $complete; do
	row "$name" none "$(broken "$name")"
done
while read -r part property more; do
	search "without:$part" "-D$part" $more
	row "without:$part" "$property" "$(broken "without:$part")"
done <<'PARTS'
NONEEDCHECK SAFE
NOERA SAFE
REUSEKEY SAFE
BYTESFIRST SAFE
CHECKFIRST SAFE
NOLEASE PROMISE
TOUCHLATE PROMISE
NOSWEEP QUIET
NOLOOK REPAIR -DLOSS
PARTS

model=packs.pml
search packs
row packs none "$(broken packs)"
while read -r part property; do
	search "packs without:$part" "-D$part"
	row "packs without:$part" "$property" "$(broken "packs without:$part")"
done <<'PARTS'
NOPENDING READ
NOTURN BYTES
EARLY BYTES
BLIND GONE
ORDER BYTES
PARTS

# A statement that a search never gets to checks nothing.
for name in $complete packs; do
	never=$(sed -n 's/^\t[^ ]*\([a-z]*.pml:[0-9]*, state [0-9]*, .*\)/\1/p' "$work/$name" | grep -v -- '"-end-"' || true)
	if [ -n "$never" ]; then
		printf '%s never gets to\n%s\n' "$name" "$never"
		failed=1
	fi
done
exit "$failed"
