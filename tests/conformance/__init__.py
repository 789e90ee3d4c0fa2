"""The contract of SageMaker with a container, checked against a built image on a real engine.

Each test is named after the check it makes (test_f01_... to test_f40_...); there may be several to
one check. `scripts/conformance` builds the image, installs the SDKs and runs them. The default
run of pytest does not collect this folder.
"""
